"""Places: hands out the places under ceilings, through Redis for all workers together; while it is out, each worker its share.

The order is the same either way (waiting.py). What workers hold and wait for are leases, renewed here: a worker that dies
blocks nobody for long. When Redis comes back, whatever it knows by then, it is told what is held and who waits.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from math import ceil, inf
from typing import Final

import redis
import structlog
from uuid_utils.compat import uuid7

from gateway.config.documents import Deployment, PoolMember
from gateway.routing.shared_queue import Renewal, SharedQueue
from gateway.routing.waiting import Answer, FairQueue, Granted, Pool, Ticket
from usage.store import StoreUnavailable, connect

TICK_S: Final = 1.0  # a ticket is leased for 5 s, and so is a place from its grant to its first renewal
RENEW_S: Final = 10.0  # of a lease of 30 s
Usable = Callable[[Deployment], Sequence[PoolMember]]

_log = structlog.get_logger("gateway")


def has_member_ceilings(deployment: Deployment) -> bool:
    for member in deployment.members:  # noqa: SIM110 - asked with each call, of which a generator would be two more
        if member.max_concurrent_calls is not None:
            return True
    return False


class Claim:
    """A ticket, and what has become of it. wished: those of its wishes that may be given a call now.

    answered: set with `answer`, or by whoever does not want it any more. is_shared: Redis may know it. is_renewed: since its
    grant.
    """

    __slots__ = ("answer", "answered", "deployment", "is_renewed", "is_shared", "ticket", "wished")

    def __init__(self, deployment: Deployment, ticket: Ticket, wished: Sequence[str]) -> None:
        self.deployment = deployment
        self.ticket = ticket
        self.wished = wished
        self.answer: Answer | None = None
        self.answered = threading.Event()
        self.is_shared = False
        self.is_renewed = False

    @property
    def member(self) -> str:
        """Where it holds a place; "" where none of the backends has a ceiling of its own."""
        return self.answer.member if isinstance(self.answer, Granted) else ""


class Places:
    """One a worker. Any greenlet may ask and give back; `run` is the body of one of its own. Before start() it is alone."""

    def __init__(self) -> None:
        self._shared: SharedQueue | None = None
        self._listener: redis.Redis | None = None  # a connection that may wait longer than others
        self._usable: Usable = lambda deployment: deployment.members
        self._workers = 1
        self._waiting: dict[str, Claim] = {}  # by ticket, as the others
        self._held: dict[str, Claim] = {}
        self._over: dict[str, Claim] = {}  # Redis does not know it yet
        self._deployments: dict[str, Deployment] = {}  # as the last call of each saw them
        self._queues: dict[str, FairQueue] = {}  # while it is alone
        self._is_alone = True  # since Redis failed, until it answers `run` again: nobody else waits for time-outs
        self._lock = threading.RLock()  # never held over I/O
        self._somebody_waits = threading.Event()
        self._renewed_s = -inf
        self._is_stopped = False

    def start(self, redis_url: str, *, workers: int, usable: Usable) -> None:
        """Share the ceilings through this Redis; while it is out, every worker of `workers` has as much of them.

        usable: which members of a deployment may be given calls now. Connects on first use.
        """
        self._shared = SharedQueue(connect(redis_url), uuid7().hex)
        self._listener = connect(redis_url, max_connections=1, timeout_s=TICK_S + 2, retries=0)
        self._workers, self._usable, self._is_alone = workers, usable, False

    def ask(self, claim: Claim, *, instead_of: Claim | None = None) -> None:
        """Have it answered, at once or later. instead_of: the place of the same call, which is given back with it."""
        before = instead_of.ticket.id if instead_of else ""
        with self._lock:
            self._deployments[claim.deployment.name] = claim.deployment
            self._waiting[claim.ticket.id] = claim
            self._held.pop(before, None)
        if self._together(lambda shared: self._take(shared, claim, before)):
            return
        with self._lock:
            if instead_of is not None:
                self._note_over(instead_of)
            self._take_alone(claim, before)

    def give_up(self, claim: Claim) -> None:
        """It has waited for as long as it may: it is refused, unless it gets its place at this moment."""
        name, id_ = claim.deployment.name, claim.ticket.id
        if self._together(lambda shared: self._tell([shared.give_up(name, id_)])):
            return
        with self._lock:
            if claim.answer is None:
                self._tell([self._queue(claim.deployment).give_up(id_)])
                self._note_over(claim)

    def give_back(self, claim: Claim) -> None:
        """It is over: who is next gets its place. Of a claim that waits, its place in the line is let go. Never raises."""
        name, id_ = claim.deployment.name, claim.ticket.id
        with self._lock:
            self._waiting.pop(id_, None)
            self._held.pop(id_, None)
        if self._together(lambda shared: shared.release(name, [id_], self._pool(claim.deployment))):
            return
        with self._lock:
            self._note_over(claim)
            self._tell(self._queue(claim.deployment).release(id_, self._pool(claim.deployment)))

    def run(self) -> None:
        """Hear of grants, renew leases, and notice that Redis is back, until stop()."""
        next_tick_s = time.monotonic() + TICK_S
        while not self._is_stopped:
            try:
                self._listen(next_tick_s - time.monotonic())
                if time.monotonic() >= next_tick_s:
                    next_tick_s = time.monotonic() + TICK_S
                    self._tick()
            except StoreUnavailable as error:
                self._be_alone(error)
            except Exception as error:  # noqa: BLE001 - the edge of this greenlet: without it no lease would be renewed
                _log.error("unexpected_error", error_class=type(error).__name__, exc_info=error)
                time.sleep(TICK_S)

    def stop(self) -> None:
        """End run() within TICK_S; for a worker without calls."""
        self._is_stopped = True
        self._somebody_waits.set()

    # Together.

    def _together(self, verb: Callable[[SharedQueue], None]) -> bool:
        """Do it in Redis. False: it is out, and there is nobody but us."""
        if self._is_alone or self._shared is None:
            return False
        try:
            verb(self._shared)
        except StoreUnavailable as error:
            self._be_alone(error)
            return False
        return True

    def _take(self, shared: SharedQueue, claim: Claim, before: str = "") -> None:
        claim.is_shared = True
        pool = self._pool(claim.deployment, also=claim.wished)
        self._tell(shared.take(claim.deployment.name, claim.ticket, pool, instead_of=before))
        self._somebody_waits.set()

    def _listen(self, wait_s: float) -> None:
        """Wait for what is told of our claims; where none waits, for one that does."""
        if self._is_alone or self._shared is None or self._listener is None:
            time.sleep(max(0.0, wait_s))
        elif self._waiting:
            self._tell(self._shared.answers(self._listener, wait_s=max(0.01, wait_s)))
        else:
            self._somebody_waits.wait(max(0.0, wait_s))
            self._somebody_waits.clear()

    def _tick(self) -> None:
        if self._shared is None or self._listener is None:
            return
        if self._is_alone:
            self._come_back(self._shared)
        self._renew(self._shared, self._listener)

    def _renew(self, shared: SharedQueue, listener: redis.Redis) -> None:
        """Lease again what waits, what was granted since the last time, and, every RENEW_S, all that is held."""
        is_due = time.monotonic() - self._renewed_s >= RENEW_S
        if is_due:
            self._renewed_s = time.monotonic()
        of: dict[str, Renewal] = {}
        for claim in [*self._waiting.values(), *self._held.values()]:
            if is_due or not claim.is_renewed:
                one = of.setdefault(claim.deployment.name, Renewal(self._pool(claim.deployment), [], {}))
                if claim.answer is None:
                    one.waiting.append(claim.ticket.id)
                else:
                    one.held[claim.ticket.id] = claim.member
                    claim.is_renewed = claim.is_shared = True
        gone = []
        for name, standing in shared.renew(of).items():
            self._tell(standing.answers)
            gone += standing.gone
            # What ended during the round trip was leased again by it.
            if ended := [id_ for id_ in of[name].held if id_ not in self._held]:
                shared.release(name, ended, of[name].pool)
        if gone:
            self._tell(shared.answers(listener, wait_s=0.01))  # some may be gone because they are answered
        for lost in [self._waiting[id_] for id_ in gone if id_ in self._waiting]:
            self._take(shared, lost)

    def _tell(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            claim = self._waiting.pop(answer.id, None)
            if claim is None:
                continue  # its client has left
            if isinstance(answer, Granted):
                self._held[answer.id] = claim
            claim.answer = answer
            claim.answered.set()

    def _pool(self, deployment: Deployment, *, also: Sequence[str] = ()) -> Pool:
        """What there is to hand out, by the newest configuration and what is known of the backends now.

        also: names of members that are out, but may have the one call that tries them.
        """
        newest = self._deployments.get(deployment.name, deployment)
        ceiling = self._share(newest.max_concurrent_calls)
        if not has_member_ceilings(newest):
            return Pool(ceiling)
        usable = {*also, *(member.backend.name for member in self._usable(newest))}
        ceilings = {member.backend.name: self._share(member.max_concurrent_calls) for member in newest.members}
        return Pool(ceiling, tuple((name, most) for name, most in ceilings.items() if name in usable))

    def _share(self, ceiling: int | None) -> int | None:
        return ceil(ceiling / self._workers) if self._is_alone and ceiling is not None else ceiling

    # Alone.

    def _be_alone(self, error: Exception) -> None:
        """Redis is out: who waits there waits here."""
        with self._lock:
            if self._is_alone:
                return
            self._is_alone = True
            _log.warning("ceilings_not_shared", error_class=type(error).__name__)
            for claim in list(self._waiting.values()):
                self._take_alone(claim)

    def _take_alone(self, claim: Claim, before: str = "") -> None:
        queue = self._queue(claim.deployment)
        if claim.answer is None and not queue.knows(claim.ticket.id):
            pool = self._pool(claim.deployment, also=claim.wished)
            self._tell(queue.take(claim.ticket, pool, instead_of=before))

    def _queue(self, deployment: Deployment) -> FairQueue:
        """That of this worker alone, where at first its calls hold what they hold."""
        queue = self._queues.get(deployment.name)
        if queue is None:
            queue = self._queues[deployment.name] = FairQueue(time.monotonic)
            for claim in self._held.values():
                if claim.deployment.name == deployment.name:
                    queue.hold(claim.ticket.id, claim.member)
        return queue

    def _note_over(self, claim: Claim) -> None:
        if claim.is_shared:
            self._over[claim.ticket.id] = claim

    def _come_back(self, shared: SharedQueue) -> None:
        """Redis answers, it seems: tell it what is over; what is held and who waits is told with the next renewal, at once."""
        shared.ping()
        while True:
            with self._lock:
                if not self._over:
                    self._is_alone = False
                    self._queues.clear()
                    break
                id_, claim = next(iter(self._over.items()))
            shared.release(claim.deployment.name, [id_], self._pool(claim.deployment))
            self._over.pop(id_, None)
        self._renewed_s = -inf
        _log.warning("ceilings_shared_again")
