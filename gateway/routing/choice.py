"""The choice among the backends of one tier: where a call would probably see its first token soonest. Pure; time is passed in.

What a backend makes of a call is learned from this worker's own calls: the time to the first token where none waits, and
how much each call that waits there adds. How many wait is worked out from what is in flight over all workers, and from the
gauges, which tell how many it runs at once and what else it has to do.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from gateway.config.documents import PoolMember
from gateway.routing.affinity import draw, place
from usage.values import light_dataclass

if TYPE_CHECKING:
    from gateway.routing.board import View

# Backends that are expected to take so much longer than the best are as good: which of them is left to affinity, or chance.
# Chance keeps the workers, each of which sees the others' calls up to a second late, from all going to the same one.
NEAR: Final = 1.25
# For a conversation that may be in a cache also those that take so much longer, in first-token times of the fastest.
CACHED: Final = 0.5
# So many calls in flight make a backend of average weight, none of them waiting, count as half as fast: equals share calls.
BUSY_CALLS: Final = 32
KV_FULL: Final = 0.95  # from here on the next call waits, or pushes out another
# What is learned moves fast towards what is better and slowly towards what is worse, as queues we did not see look worse.
BETTER: Final = 0.1
WORSE: Final = 0.03
FOREIGN: Final = 0.1
# Few calls prove little, and what they proved fades by half while so many calls go elsewhere: what is not known of a backend
# is taken for the best, so that it is tried, and again after it was slow.
PROVES_CALLS: Final = 5
PROOF_MAX_CALLS: Final = 100
FADES_CALLS: Final = 200
SEATS_KNOWN_S: Final = 60.0
_FADED: Final = 0.5 ** (1 / FADES_CALLS)


@light_dataclass
class Facts:
    """prompt_tokens: the likely count. prefix_digest: affinity.beginning() of the conversation, b"" for none to keep."""

    tenant_id: str
    request_id: str
    prompt_tokens: int
    prefix_digest: bytes = b""


@light_dataclass
class Candidate:
    """A backend that could take the call, and how it looks now; its readiness is above 0."""

    member: PoolMember
    view: "View"


class _Learned:
    """Of one backend. first_s: to the first token where no call waits; each that waits adds place_s. None: not known yet.

    proof: how many calls it was learned from, of late. seats: how many it runs at once. foreign: what it runs or queues that
    is not in our counts. readiness: as it looked last.
    """

    __slots__ = ("first_s", "foreign", "load_at_s", "place_s", "proof", "readiness", "seats", "seats_at_s")

    def __init__(self) -> None:
        self.first_s: float | None = None
        self.place_s = 0.0
        self.proof = 0.0
        self.seats: int | None = None
        self.seats_at_s = 0.0
        self.foreign = 0.0
        self.load_at_s: float | None = None
        self.readiness = 1.0

    def look(self, view: "View", now_s: float) -> None:
        """Learn from its gauges, once each time that they are read.

        Of one that has been out meanwhile, how fast it was is forgotten: it is another now, and comes back slowly as it is.
        """
        if view.readiness < self.readiness:
            self.first_s, self.place_s, self.proof = None, 0.0, 0.0
        self.readiness = view.readiness
        load = view.load
        if load is None or load.at_s == self.load_at_s:
            return
        is_new, self.load_at_s = self.load_at_s is None, load.at_s
        unknown = load.running + load.waiting - view.in_flight
        self.foreign += (1.0 if is_new else FOREIGN) * (unknown - self.foreign)
        if load.waiting or load.kv_cache >= KV_FULL:
            self.seats, self.seats_at_s = load.running, now_s
        elif self.seats is not None:
            self.seats = max(self.seats, load.running) if now_s - self.seats_at_s < SEATS_KNOWN_S else None

    def calls(self, view: "View") -> float:
        """Ours and others'."""
        return view.in_flight + (max(0.0, self.foreign) if view.load is not None else 0.0)

    def queued(self, view: "View") -> float:
        """How many places in its queue a call that comes now would be from running."""
        return 0.0 if self.seats is None or view.load is None else max(0.0, self.calls(view) + 1 - self.seats)


class Expectations:
    """One a worker, for all its deployments (`expectations`, below)."""

    def __init__(self) -> None:
        self._learned: dict[str, _Learned] = {}

    def queued(self, view: "View", now_s: float) -> float:
        """How many calls one that comes now waits for; to be passed to note_first_token."""
        learned = self._of(view.backend)
        learned.look(view, now_s)
        return learned.queued(view)

    def note_choice(self, candidates: Sequence[Candidate], chosen: PoolMember) -> None:
        for candidate in candidates:
            if candidate.member is not chosen:
                self._of(candidate.view.backend).proof *= _FADED

    def note_first_token(self, backend: str, *, queued: float, first_token_s: float) -> None:
        """A call that found `queued` calls before it has got its first token."""
        learned = self._of(backend)
        learned.proof = min(learned.proof + 1, PROOF_MAX_CALLS)
        if learned.first_s is None:
            learned.first_s = learned.place_s = first_token_s / (1 + queued)
            return
        error_s = first_token_s - learned.first_s - queued * learned.place_s
        # Least mean squares: each of the two takes the blame by its part in what was expected.
        step_s = error_s * max(WORSE if error_s > 0 else BETTER, 1 / learned.proof) / (1 + queued * queued)
        # Never by more than half at once: one lucky call is no reason to send everybody after it.
        learned.first_s = max(learned.first_s + step_s, learned.first_s / 2)
        learned.place_s = max(learned.place_s + step_s * queued, learned.place_s / 2)

    def expected_s(self, candidates: Sequence[Candidate], now_s: float) -> tuple[list[float], float]:
        """For each candidate how long a call that comes now waits for its first token, and the shortest with nothing to do.

        Comparable with each other; seconds where anything is known.
        """
        all_learned = [self._of(candidate.view.backend) for candidate in candidates]
        fastest_s = min((learned.first_s for learned in all_learned if learned.first_s is not None), default=1.0)
        weights = sum(candidate.member.weight for candidate in candidates) / len(candidates)
        expected = []
        for candidate, learned in zip(candidates, all_learned, strict=True):
            view = candidate.view
            learned.look(view, now_s)
            if learned.first_s is None:
                first_s = place_s = fastest_s
            else:
                first_s = fastest_s + (learned.first_s - fastest_s) * learned.proof / (learned.proof + PROVES_CALLS)
                place_s = learned.place_s * first_s / learned.first_s
            queued = learned.queued(view)
            running = learned.calls(view) - queued
            share = candidate.member.weight / weights
            wait_s = first_s * (1 + max(0.0, running) / (BUSY_CALLS * share)) + queued * place_s
            expected.append(wait_s / view.readiness)
        return expected, fastest_s

    def _of(self, backend: str) -> _Learned:
        learned = self._learned.get(backend)
        if learned is None:
            learned = self._learned[backend] = _Learned()
        return learned


expectations: Final = Expectations()


def best_first(
    candidates: Sequence[Candidate],
    facts: Facts,
    *,
    expected: Expectations,
    now_s: float,
    dice: Callable[[], float],
) -> list[PoolMember]:
    """The one that the call goes to, then the others, soonest first.

    Among the best, and those near it, a conversation goes where it has been, and others by chance, in shares of the weights.
    """
    waits_s, fastest_s = expected.expected_s(candidates, now_s)
    near_s = NEAR * min(waits_s) + (CACHED * fastest_s if facts.prefix_digest else 0.0)

    def rank(at: int) -> tuple[bool, float]:
        if waits_s[at] > near_s:
            return True, waits_s[at]
        member = candidates[at].member
        name = member.backend.name
        lot = draw(facts.tenant_id, facts.prefix_digest, name) if facts.prefix_digest else 1.0 - dice()
        return False, place(lot, member.weight)

    best = [candidates[at].member for at in sorted(range(len(candidates)), key=rank)]
    expected.note_choice(candidates, best[0])
    return best
