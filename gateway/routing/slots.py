"""Slots: the ceilings of deployments and their backends, exact over all workers, and the fair wait for a place under them.

A deployment without a ceiling pays nothing for any of this.
"""

import time
from collections.abc import Sequence
from itertools import count
from types import TracebackType
from typing import Final, Self

from gateway import metrics
from gateway.config.documents import Deployment, PoolMember
from gateway.exceptions import ClientLeft, Overloaded
from gateway.routing.choice import Facts
from gateway.routing.places import Claim, Places, Usable, has_member_ceilings
from gateway.routing.waiting import Refused, Ticket


class Slot:
    """One call's place at one deployment. Nothing is held, and Redis is not asked, before candidates.ranked() asks for it.

    Keep it until the call has ended, its stream too; release() or `with` gives it back and lets the next call in.
    queue_ms: how long the call waited for it, failovers included. Without any ceiling all of this is free.
    """

    queue_ms: int = 0
    is_limited: bool = False

    def at(self, wished: Sequence[PoolMember], spare: Sequence[PoolMember] = ()) -> PoolMember:
        """For candidates.ranked() alone: hold a place at one of `wished`, the first that has one.

        Where none has one this waits for it; meanwhile one of `spare`, that were out, may have come back and will do as well.
        Raises Overloaded past the bound, ClientLeft after abandon().
        """
        return wished[0]

    def abandon(self) -> None:
        """The client has left: whoever waits here gets ClientLeft at once. From any greenlet, at any time."""

    def release(self) -> None:
        """The call has ended: the next one gets its place. Again is harmless. Never raises."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


FREE: Final = Slot()
_numbers: Final = count(1)


class LimitedSlot(Slot):
    """A slot of a deployment with ceilings. deadline: of the call, monotonic seconds; wait_max_s: of one wait."""

    is_limited = True

    def __init__(
        self, places: Places, deployment: Deployment, facts: Facts, *, tokens: int, deadline: float, wait_max_s: float
    ) -> None:
        self._places = places
        self._deployment = deployment
        self._facts = facts
        self._tokens = max(1, tokens)
        self._deadline = deadline
        self._wait_max_s = wait_max_s
        self._held: Claim | None = None
        self._asked: Claim | None = None  # what it waits for
        self._is_over = False

    def at(self, wished: Sequence[PoolMember], spare: Sequence[PoolMember] = ()) -> PoolMember:
        if self._held is not None and not has_member_ceilings(self._deployment):
            return wished[0]  # its place is anywhere
        members = {member.backend.name: member for member in (*wished, *spare)}
        return members.get(self._place_at(tuple(members), len(wished)), wished[0])

    def abandon(self) -> None:
        self._is_over = True
        if self._asked is not None:
            self._asked.answered.set()

    def release(self) -> None:
        self.abandon()
        held, self._held = self._held, None
        if held is not None:
            self._places.give_back(held)

    def _place_at(self, names: tuple[str, ...], wished: int) -> str:
        """A place at one of these, the first `wished` of which are in, in exchange for the one it has, which was paid for."""
        if self._is_over:
            raise ClientLeft
        before, self._held = self._held, None
        # A number of its own, so that what is told of one wait is not taken for the next one's.
        id_ = f"{self._facts.request_id}/{next(_numbers)}"
        ticket = Ticket(id_, self._facts.tenant_id, 0 if before else self._tokens, names)
        claim = self._asked = Claim(self._deployment, ticket, names[:wished])
        self._places.ask(claim, instead_of=before)
        if claim.answer is None:
            self._wait(claim)
        self._asked = None
        if self._is_over:  # perhaps at the very moment of its grant
            self._places.give_back(claim)
            raise ClientLeft
        if isinstance(claim.answer, Refused):
            raise Overloaded(retry_after_s=claim.answer.retry_after_s)
        self._held = claim
        return claim.member

    def _wait(self, claim: Claim) -> None:
        begun_s = time.monotonic()
        claim.answered.wait(max(0.0, min(self._wait_max_s, self._deadline - begun_s)))
        if claim.answer is None and not self._is_over:
            self._places.give_up(claim)
        waited_s = time.monotonic() - begun_s
        self.queue_ms += round(waited_s * 1000)
        metrics.observed[metrics.QUEUED, self._deployment.name].append(waited_s)


class Slots:
    """One a worker (`slots`, below)."""

    def __init__(self) -> None:
        self._places = Places()
        self._queue_max_s = 10.0

    def start(self, redis_url: str, *, workers: int, queue_max_s: float, usable: Usable) -> None:
        """Share the ceilings, see Places.start; before this, a worker has all of them for itself."""
        self._queue_max_s = queue_max_s
        self._places.start(redis_url, workers=workers, usable=usable)

    def run(self) -> None:
        """The body of one greenlet, until stop()."""
        self._places.run()

    def stop(self) -> None:
        self._places.stop()

    def slot(self, deployment: Deployment, facts: Facts, *, tokens: int, deadline: float) -> Slot:
        """A place for one call; see Slot.

        tokens: what the call reserves, its weight in the fair order; > 0. deadline: the call's own, monotonic seconds; it
        waits no longer than deployment.queue_max_s (None: the setting) either.
        """
        if deployment.max_concurrent_calls is None and not has_member_ceilings(deployment):
            return FREE
        own_s = deployment.queue_max_s
        wait_max_s = self._queue_max_s if own_s is None else own_s
        return LimitedSlot(self._places, deployment, facts, tokens=tokens, deadline=deadline, wait_max_s=wait_max_s)


slots: Final = Slots()
