"""Which backends of a deployment to try, in which order."""

import random
from collections.abc import Callable

from gateway.config.documents import Backend, Deployment

MAX_ATTEMPTS = 3


def candidates(
    deployment: Deployment, in_flight: Callable[[Backend], int], *, dice: Callable[[], float] = random.random
) -> list[Backend]:
    """At most MAX_ATTEMPTS backends, the least loaded for its weight first; equals in random order.

    in_flight: calls this worker has open at a backend.
    """
    ranked = sorted(deployment.members, key=lambda member: ((in_flight(member.backend) + 1) / member.weight, dice()))
    return [member.backend for member in ranked[:MAX_ATTEMPTS]]
