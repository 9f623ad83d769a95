"""The fair order of those who wait, and the rate by which they are told when to come back."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.routing.waiting import UNKNOWN_S, Answer, FairQueue, Granted, Pool, Rate, Refused, Ticket

ONE = Pool(1)


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Line:
    """A queue, and who was let in in which order."""

    pool: Pool = ONE
    clock: Clock = field(default_factory=Clock)
    entered: list[str] = field(default_factory=list)
    refused: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queue = FairQueue(self.clock)

    def come(self, id_: str, tenant: str, tokens: int = 100, wishes: tuple[str, ...] = (), instead_of: str = "") -> None:
        self._note(self.queue.take(Ticket(id_, tenant, tokens, wishes), self.pool, instead_of=instead_of))

    def end(self, id_: str) -> None:
        self._note(self.queue.release(id_, self.pool))

    def serve_all(self) -> list[str]:
        """End whoever is in, one after the other, until nobody is left. Returns all who were, in order."""
        ended = 0
        while ended < len(self.entered):
            self.end(self.entered[ended])
            ended += 1
        return self.entered

    def _note(self, answers: list[Answer]) -> None:
        for answer in answers:
            if isinstance(answer, Granted):
                self.entered.append(answer.id)
            else:
                self.refused[answer.id] = answer.retry_after_s


def test_nobody_waits_below_the_ceiling() -> None:
    line = Line(Pool(3))
    for id_ in "abc":
        line.come(id_, "acme")
    assert line.entered == ["a", "b", "c"]
    line.come("d", "acme")
    assert line.entered == ["a", "b", "c"]
    line.end("b")
    assert line.entered[-1] == "d"


def test_a_tenant_is_served_in_the_order_it_came() -> None:
    line = Line()
    for number in range(20):
        line.come(f"{number:02d}", "acme", tokens=1000 - number)
    assert line.serve_all() == [f"{number:02d}" for number in range(20)]


def test_a_flood_delays_another_tenant_by_one_turn_at_most() -> None:
    line = Line()
    for number in range(500):
        line.come(f"flood-{number:03d}", "globex")
    line.come("one", "acme")
    line.end(line.entered[-1])
    assert line.entered[-1] == "one"


def test_tenants_share_by_tokens_and_not_by_calls() -> None:
    line = Line()
    for number in range(200):
        line.come(f"big-{number:03d}", "globex", tokens=400)
        line.come(f"small-{number:03d}", "acme", tokens=100)
    first = Counter(id_.partition("-")[0] for id_ in line.serve_all()[:100])
    assert first["small"] == pytest.approx(80, abs=2)


def test_a_tenant_is_owed_nothing_for_its_silence() -> None:
    line = Line()
    line.come("early", "acme")
    for number in range(50):
        line.come(f"flood-{number:03d}", "globex")
    for _ in range(20):
        line.end(line.entered[-1])
    for number in range(50):
        line.come(f"late-{number:03d}", "acme")
    served = line.serve_all()[21:41]
    assert sum(id_.startswith("late") for id_ in served) in {9, 10, 11}


def test_a_tenant_owes_nothing_for_having_been_alone() -> None:
    line = Line()
    for number in range(100):
        line.come(f"alone-{number:03d}", "acme")
        line.end(line.entered[-1])
    line.come("other", "globex")
    for number in range(10):
        line.come(f"a-{number}", "acme")
        line.come(f"g-{number}", "globex")
    served = line.serve_all()[101:111]
    assert sum(id_.startswith("a-") for id_ in served) in {4, 5, 6}


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside the flood"])
def test_what_a_tenant_owes_is_not_paid_by_waiting_for_a_flood(alone: bool) -> None:
    """It reserved a thousand times what the flood's calls do, alone or in turn: at most one of them goes before its own."""
    line = Line()
    line.come("alone", "quiet", 10_000)
    if alone:
        line.end("alone")
    for number in range(200):
        line.come(f"flood-{number:03d}", "flooder", 10)
    if not alone:
        line.end("alone")
    for number in range(5):
        line.come(f"quiet-{number}", "quiet", 10_000)
        before = len(line.entered)
        while f"quiet-{number}" not in line.entered:
            line.end(line.entered[-1])
        assert len(line.entered) - before <= 2
        line.end(line.entered[-1])


def test_who_leaves_the_line_changes_nobody_elses_turn() -> None:
    """The flood's clients give up all the time: neither does that pay, nor is it held against what comes later."""
    line = Line()
    line.come("in", "acme")
    for number in range(300):
        line.come(f"flood-{number:03d}", "globex")
        assert isinstance(line.queue.give_up(f"flood-{number:03d}"), Refused)
    for number in range(10):
        line.come(f"g-{number}", "globex")
        line.come(f"a-{number}", "acme")
    served = line.serve_all()[1:11]
    assert sum(id_.startswith("g-") for id_ in served) in {4, 5, 6}


def test_a_call_that_fails_over_goes_first_and_pays_once() -> None:
    pool = Pool(None, (("gpu-1", 1), ("gpu-2", 1)))
    line = Line(pool)
    line.come("a", "acme", wishes=("gpu-1", "gpu-2"))
    line.come("b", "globex", wishes=("gpu-1", "gpu-2"))
    for number in range(5):
        line.come(f"g-{number}", "globex", wishes=("gpu-1", "gpu-2"))
    line.pool = Pool(None, (("gpu-2", 1),))  # gpu-1 is out: its call asks for the other one
    line.come("a2", "acme", tokens=0, wishes=("gpu-2",), instead_of="a")
    line.end("b")
    assert line.entered[-1] == "a2"
    line.come("c", "acme", wishes=("gpu-2",))
    line.end("a2")
    line.end(line.entered[-1])
    assert "c" in line.entered  # it paid for one call, not for two


def test_who_wants_another_backend_holds_nobody_up() -> None:
    line = Line(Pool(None, (("gpu-1", 1), ("gpu-2", 1))))
    line.come("a", "acme", wishes=("gpu-1",))
    line.come("b", "acme", wishes=("gpu-1",))
    line.come("c", "acme", wishes=("gpu-1", "gpu-2"))
    assert line.entered == ["a", "c"]


def test_a_backend_that_returns_serves_those_who_wait() -> None:
    line = Line(Pool(None, (("gpu-1", 1),)))
    line.come("a", "acme", wishes=("gpu-1", "gpu-2"))
    line.come("b", "acme", wishes=("gpu-1", "gpu-2"))
    line.pool = Pool(None, (("gpu-1", 1), ("gpu-2", 1)))
    line.end("nobody")
    assert line.queue.held == {"a": "gpu-1", "b": "gpu-2"}


def test_when_too_many_wait_the_longest_line_loses_its_newest_call() -> None:
    line = Line(Pool(1, (), waiting_max=5))
    line.come("in", "globex")
    for number in range(5):
        line.come(f"flood-{number}", "globex")
    line.come("one", "acme")
    assert list(line.refused) == ["flood-4"]
    line.come("flood-5", "globex")
    assert list(line.refused) == ["flood-4", "flood-5"]
    assert "one" in line.serve_all()


def test_a_place_got_at_the_last_moment_is_kept() -> None:
    line = Line()
    line.come("a", "acme")
    line.come("b", "acme")
    line.end("a")
    assert line.queue.give_up("b") == Granted("b", "")


def test_retry_after_is_when_those_before_have_been_served() -> None:
    """Calls end every 2 s; 10 wait, and the eleventh gives up: 11 turns later a call that comes would be served."""
    line = Line()
    line.come("0", "acme")
    for number in range(1, 51):
        line.come(str(number), "acme")
    for number in range(40):
        line.clock.now_s += 2
        line.end(str(number))
    refusal = line.queue.give_up("50")
    assert isinstance(refusal, Refused)
    assert refusal.retry_after_s == pytest.approx(2 * 10, rel=0.01)


def test_retry_after_grows_while_nothing_ends() -> None:
    line = Line()
    line.come("0", "acme")
    for number in range(1, 20):
        line.come(str(number), "acme")
        line.clock.now_s += 1
        line.end(str(number - 1))
    line.come("x", "globex")
    line.come("y", "globex")
    soon = line.queue.give_up("y")
    line.clock.now_s += 120
    late = line.queue.give_up("x")
    assert isinstance(soon, Refused)
    assert isinstance(late, Refused)
    assert late.retry_after_s > 3 * soon.retry_after_s


def test_retry_after_is_a_guess_before_anything_has_ended() -> None:
    line = Line()
    line.come("a", "acme")
    line.come("b", "acme")
    assert line.queue.give_up("b") == Refused("b", UNKNOWN_S)


def test_the_rate_counts_no_time_in_which_places_were_free() -> None:
    rate = Rate()
    rate.note_full(True, 0.0)
    for second in range(1, 11):
        rate.note_end(float(second))
    rate.note_full(False, 10.0)
    rate.note_end(500.0)
    rate.note_full(True, 1000.0)
    assert rate.calls_per_s(1000.0) == pytest.approx(1.0)


TENANTS = ("a", "b", "c", "d")


@settings(max_examples=200, deadline=None)
@given(
    ceiling=st.integers(1, 4),
    comes=st.lists(st.tuples(st.sampled_from(TENANTS), st.integers(1, 100)), min_size=1, max_size=120),
    ends=st.lists(st.integers(0, 3), max_size=200),
)
def test_tenants_that_wait_are_served_alike_to_within_one_call_each(
    ceiling: int, comes: list[tuple[str, int]], ends: list[int]
) -> None:
    """While two tenants both wait, what each was served differs by less than its own and the other's largest call."""
    line = Line(Pool(ceiling))
    tokens = {}
    for number, (tenant, size) in enumerate([("z", 1)] * ceiling + comes):  # z fills the places: all others wait
        id_ = f"{tenant}{number:04d}"
        tokens[id_] = size
        line.come(id_, tenant, size)
    left = Counter(tenant for tenant, _ in comes)
    served: Counter[str] = Counter()
    inside = list(line.entered)
    for which in ends:
        if not inside:
            break
        before = len(line.entered)
        line.end(inside.pop(which % len(inside)))
        assert len(line.queue.held) <= ceiling
        for id_ in line.entered[before:]:
            inside.append(id_)
            served[id_[0]] += tokens[id_]
            left[id_[0]] -= 1
        waiting = [tenant for tenant in TENANTS if left[tenant] > 0]
        for one in waiting:
            for other in waiting:
                assert served[one] - served[other] <= 100 + 100


@settings(max_examples=100, deadline=None)
@given(
    rounds=st.lists(st.tuples(st.sampled_from(TENANTS[:3]), st.integers(1, 50), st.booleans()), min_size=1, max_size=80),
    flood=st.integers(1, 50),
)
def test_one_call_of_a_quiet_tenant_is_the_next_or_the_one_after(rounds: list[tuple[str, int, bool]], flood: int) -> None:
    """Whatever others did before: who comes with one call waits for the turn that is due at most."""
    line = Line()
    inside = 0
    for number, (tenant, size, has_end) in enumerate(rounds):
        line.come(f"{number:03d}", tenant, size)
        if has_end and inside < len(line.entered):
            line.end(line.entered[inside])
            inside += 1
    for number in range(flood):
        line.come(f"flood-{number}", "a", 50)
    waiting = 3  # tenants that may be due at the same tag
    line.come("quiet", "q", 1)
    for _ in range(waiting + 1):
        if inside < len(line.entered):
            line.end(line.entered[inside])
            inside += 1
    assert "quiet" in line.entered
