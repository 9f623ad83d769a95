"""Slots: the ceilings of deployments and their backends, exact over all workers, and the fair wait for a place under them."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from gateway.config.documents import Deployment, PoolMember
from gateway.routing.choice import Facts


class Slot:
    """One call's place at one deployment. Nothing is held, and Redis is not asked, before candidates.ranked() asks for it.

    Keep it until the call has ended, its stream too; release() or `with` gives it back and lets the next call in.
    queue_ms: how long the call waited for it, failovers included. Without any ceiling all of this is free.
    """

    queue_ms: int = 0

    def at(self, wished: Sequence[PoolMember], spare: Sequence[PoolMember] = ()) -> PoolMember:
        """For candidates.ranked() alone: hold a place at the first of `wished` that has one, and wait where none has."""
        raise NotImplementedError

    def abandon(self) -> None:
        """The client has left: whoever waits here gets ClientLeft at once. From any greenlet, at any time."""

    def release(self) -> None:
        """The call has ended: the next one gets its place. Again is harmless. Never raises."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


class Slots:
    """One a worker; any number of them share the ceilings."""

    def slot(self, deployment: Deployment, facts: Facts, *, tokens: int, deadline: float) -> Slot:
        """A place for one call; see Slot.

        tokens: what the call reserves, its weight in the fair order; > 0. deadline: the call's own, monotonic seconds; it
        waits no longer than deployment.queue_max_s (None: the setting) either.
        """
        return Slot()


slots = Slots()
