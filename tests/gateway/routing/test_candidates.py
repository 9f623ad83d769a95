"""Which backends are tried, in which order, by how they look when they are asked for."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from gateway.config.documents import Backend, Deployment, PoolMember
from gateway.routing.board import View
from gateway.routing.candidates import fits, is_out, ranked, usable_members
from gateway.routing.choice import Expectations, Facts
from gateway.routing.slots import FREE, Slot

FACTS = Facts("acme", "r", 100)


@dataclass
class FakeBoard:
    """Backends look healthy but for what is said of them."""

    looks: dict[str, View] = field(default_factory=dict)
    trials: list[str] = field(default_factory=list)  # to be taken
    taken: list[str] = field(default_factory=list)

    def says(self, name: str, **facts: object) -> "FakeBoard":
        view = self.looks.get(name) or View(name, "healthy", 1.0, None, 0, None)
        self.looks[name] = view._replace(**facts)  # type: ignore[arg-type]
        return self

    def out(self, *names: str, state: str = "ejected", at_s: float = 1.0) -> "FakeBoard":
        for name in names:
            self.says(name, state=state, readiness=0.0, ejected_at_s=at_s)
        return self

    def view(self, backend: Backend) -> View:
        return self.looks.get(backend.name) or View(backend.name, "healthy", 1.0, None, 0, None)

    def take_trial(self, backend: Backend) -> bool:
        if backend.name not in self.trials:
            return False
        self.trials.remove(backend.name)
        self.taken.append(backend.name)
        return True


def pool(*weights: int, tiers: Sequence[int] = (), **terms: object) -> Deployment:
    members = tuple(
        PoolMember(Backend(f"gpu-{at}", f"http://gpu-{at}"), weight, tiers[at] if tiers else 0)
        for at, weight in enumerate(weights)
    )
    return Deployment("d", "tiny", members, **terms)  # type: ignore[arg-type]


def draining(deployment: Deployment, *names: str) -> Deployment:
    members = tuple(
        replace(member, backend=replace(member.backend, is_draining=member.backend.name in names))
        for member in deployment.members
    )
    return replace(deployment, members=members)


def tried(deployment: Deployment, board: FakeBoard, facts: Facts = FACTS, slot: Slot = FREE) -> list[str]:
    return [backend.name for backend in ranked(deployment, facts, board, slot, expected=Expectations())]


def firsts(deployment: Deployment, board: FakeBoard, calls: int = 400) -> Counter[str]:
    expected = Expectations()
    return Counter(next(ranked(deployment, FACTS, board, expected=expected)).name for _ in range(calls))


def test_every_backend_is_tried_once() -> None:
    assert sorted(tried(pool(1, 2, 3), FakeBoard())) == ["gpu-0", "gpu-1", "gpu-2"]


def test_a_deployment_without_backends_has_none_to_try() -> None:
    assert tried(pool(), FakeBoard()) == []


def test_calls_are_shared_out_by_weight() -> None:
    assert firsts(pool(1, 3), FakeBoard())["gpu-1"] == pytest.approx(300, abs=50)


def test_the_busier_one_comes_later() -> None:
    assert firsts(pool(1, 1), FakeBoard().says("gpu-0", in_flight=100)) == {"gpu-1": 400}


def test_a_backend_of_more_weight_bears_more_calls() -> None:
    board = FakeBoard().says("gpu-0", in_flight=60).says("gpu-1", in_flight=60)
    assert firsts(pool(1, 9), board) == {"gpu-1": 400}


def test_what_is_learned_between_two_tries_counts() -> None:
    board = FakeBoard()
    order = ranked(pool(1, 1, 1), FACTS, board)
    first = next(order)
    rest = sorted({"gpu-0", "gpu-1", "gpu-2"} - {first.name})
    board.out(rest[0])
    assert next(order).name == rest[1]


@pytest.mark.parametrize("state", ["ejected", "trial"])
def test_one_that_is_out_is_not_tried_before_those_that_are_not(state: str) -> None:
    assert tried(pool(1, 1), FakeBoard().out("gpu-0", state=state)) == ["gpu-1", "gpu-0"]


def test_one_that_drains_is_never_tried() -> None:
    assert tried(draining(pool(1, 1), "gpu-0"), FakeBoard()) == ["gpu-1"]
    assert tried(draining(pool(1, 1), "gpu-0", "gpu-1"), FakeBoard()) == []


def test_one_that_has_just_returned_starts_slowly() -> None:
    assert firsts(pool(1, 1), FakeBoard().says("gpu-0", readiness=0.1)) == {"gpu-1": 400}


def test_one_without_the_model_is_never_tried() -> None:
    assert tried(pool(1, 1), FakeBoard().says("gpu-0", models=("other",))) == ["gpu-1"]


def test_a_higher_tier_waits_for_the_lower_one_to_be_out() -> None:
    deployment = pool(1, 1, 1, tiers=(1, 0, 0))
    assert tried(deployment, FakeBoard())[-1] == "gpu-0"
    assert firsts(deployment, FakeBoard().out("gpu-1", "gpu-2")) == {"gpu-0": 400}


def test_a_prompt_goes_where_there_is_room_for_it() -> None:
    board = FakeBoard().says("gpu-0", max_model_len=50).says("gpu-1", max_model_len=200)
    assert tried(pool(1, 1), board) == ["gpu-1"]
    assert sorted(tried(pool(1, 1), board, replace(FACTS, prompt_tokens=10))) == ["gpu-0", "gpu-1"]


def test_a_prompt_that_fits_nowhere_goes_to_the_largest_for_the_count_may_be_wrong() -> None:
    board = FakeBoard().says("gpu-0", max_model_len=50).says("gpu-1", max_model_len=80)
    assert tried(pool(1, 1), board) == ["gpu-1"]
    assert not fits(pool(1, 1), FACTS, board)


def test_what_the_deployment_says_of_its_context_counts_too() -> None:
    assert not fits(pool(1, max_model_len=100), FACTS, FakeBoard())
    assert fits(pool(1, max_model_len=101), FACTS, FakeBoard())
    assert fits(pool(1), FACTS, FakeBoard())


def test_a_trial_goes_to_one_call_and_comes_first() -> None:
    board = FakeBoard(trials=["gpu-0"]).out("gpu-0", state="trial")
    assert tried(pool(1, 1), board) == ["gpu-0", "gpu-1"]
    assert tried(pool(1, 1), board) == ["gpu-1", "gpu-0"]
    assert board.taken == ["gpu-0"]


def test_a_trial_is_not_taken_for_the_second_try_of_a_call() -> None:
    board = FakeBoard()
    order = ranked(pool(1, 1, 1), FACTS, board)
    first = next(order).name
    other = next(name for name in ("gpu-0", "gpu-1", "gpu-2") if name != first)
    board.out(other, state="trial").trials.append(other)
    assert next(order).name not in {first, other}
    assert board.taken == []


def test_a_higher_tier_is_not_put_on_trial_before_it_is_needed() -> None:
    deployment = pool(1, 1, tiers=(0, 1))
    board = FakeBoard(trials=["gpu-1"]).out("gpu-1", state="trial")
    assert next(ranked(deployment, FACTS, board)).name == "gpu-0"
    assert board.taken == []
    board.out("gpu-0")
    assert next(ranked(deployment, FACTS, board)).name == "gpu-1"
    assert board.taken == ["gpu-1"]


def test_with_all_out_the_one_out_for_longest_is_tried_and_no_other() -> None:
    board = FakeBoard().out("gpu-0", at_s=30.0).out("gpu-1", at_s=10.0).out("gpu-2", at_s=20.0)
    assert tried(pool(1, 1, 1), board) == ["gpu-1"]


def test_with_all_out_another_deployment_takes_over_where_there_is_one() -> None:
    board = FakeBoard().out("gpu-0", "gpu-1")
    deployment = pool(1, 1, fallback="other")
    assert is_out(deployment, board)
    assert tried(deployment, board) == []


def test_a_deployment_is_not_out_while_one_of_it_may_be_tried() -> None:
    board = FakeBoard(trials=["gpu-0"]).out("gpu-1").out("gpu-0", state="trial")
    deployment = pool(1, 1, fallback="other")
    assert not is_out(deployment, board)
    assert tried(deployment, board) == ["gpu-0"]


def test_draining_backends_are_as_good_as_out() -> None:
    assert is_out(draining(pool(1, 1), "gpu-0"), FakeBoard().out("gpu-1"))
    assert not is_out(draining(pool(1, 1), "gpu-0"), FakeBoard())


def test_usable_are_those_that_are_in_or_all_where_none_is() -> None:
    deployment = draining(pool(1, 1, 1), "gpu-2")

    def names(board: FakeBoard) -> list[str]:
        return [member.backend.name for member in usable_members(deployment, board)]

    assert names(FakeBoard().out("gpu-0")) == ["gpu-1"]
    assert names(FakeBoard().out("gpu-0", "gpu-1")) == ["gpu-0", "gpu-1"]


class OnlyAt(Slot):
    """All but one are at their ceilings."""

    is_limited = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[tuple[list[str], list[str]]] = []

    def at(self, wished: Sequence[PoolMember], spare: Sequence[PoolMember] = ()) -> PoolMember:
        self.asked.append(([one.backend.name for one in wished], [one.backend.name for one in spare]))
        return next(one for one in (*wished, *spare) if one.backend.name == self.name)


def test_a_call_goes_where_there_is_a_place_for_it() -> None:
    deployment = pool(1, 1, 1, tiers=(0, 0, 1))
    slot = OnlyAt("gpu-2")
    assert next(ranked(deployment, FACTS, FakeBoard().out("gpu-1"), slot)).name == "gpu-2"
    assert slot.asked == [(["gpu-0", "gpu-2"], ["gpu-1"])]
