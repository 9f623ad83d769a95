"""Which backends of a deployment to try, in which order."""

import random
from collections.abc import Callable, Iterator
from typing import Any

from gateway.config.documents import Backend, Deployment
from gateway.routing.choice import Facts
from gateway.routing.slots import Slot

MAX_ATTEMPTS = 3


def ranked(deployment: Deployment, facts: Facts, board: Any, slot: Slot | None = None) -> Iterator[Backend]:
    """The next backend to try, each time one that was not tried yet; ends when there is none. Ask for one at a time.

    Each is chosen when it is asked for, by what is known then: of the lowest tier that has any, not ejected, not draining,
    with a context that fits. A backend whose trial is due comes first, for the one call that takes the trial. Where all are
    ejected, the one that was ejected the longest ago is tried rather than failing.
    slot: from Slots.slot(); each backend yielded has a place held for this call, and the one before it is given back. Where
    all are at their ceilings this waits: next() raises Overloaded (with the true retry_after_s) past the bound, and ClientLeft
    after slot.abandon().
    """
    for backend in candidates(deployment, lambda _: 0):
        yield backend


def fits(deployment: Deployment, facts: Facts, board: Any) -> bool:
    """Has any backend of it a context for this prompt? False: deployment.context_fallback, if any, is the one to ask."""
    return True


def is_out(deployment: Deployment, board: Any) -> bool:
    """Is every backend of it ejected or draining? True: deployment.fallback, if any, is the one to ask."""
    return False


def candidates(
    deployment: Deployment, in_flight: Callable[[Backend], int], *, dice: Callable[[], float] = random.random
) -> list[Backend]:
    """At most MAX_ATTEMPTS backends, the least loaded for its weight first; equals in random order.

    in_flight: calls this worker has open at a backend.
    """
    ranked = sorted(deployment.members, key=lambda member: ((in_flight(member.backend) + 1) / member.weight, dice()))
    return [member.backend for member in ranked[:MAX_ATTEMPTS]]
