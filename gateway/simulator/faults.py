"""What the knobs spoil: requests that fail before any answer, and answers that end, stall or rot on the way."""

import itertools
import random
from collections.abc import Iterator
from typing import Final

from gateway.simulator import errors
from gateway.simulator.chat import DONE, Event
from gateway.simulator.engine import EngineStopped
from gateway.simulator.knobs import NEVER, Knobs

# RST makes the peer's kernel drop what its program has not read yet: without a pause the events before it were never seen.
BEFORE_RESET_S: Final = 0.02


class Cut(Exception):
    """The connection closes here, in the middle of the answer."""


class Reset(Exception):
    """As Cut, with RST."""


class ChunkReset(Reset):
    """In the middle of a chunk."""


class Hang(Exception):
    """Nothing more is sent, for as long as the client stays."""


_HALF_ENDS: Final = {"fin": Cut, "reset": ChunkReset, "silence": Hang}


def refuse(knobs: Knobs, dice: random.Random) -> None:
    """Raise what a request meets before it is looked at; nothing when all is well."""
    if knobs.hang:
        raise Hang
    if knobs.redirect:
        raise errors.Refusal(307, b"", headers=(("location", knobs.redirect),))
    if knobs.fail_rate and dice.random() < knobs.fail_rate:
        if knobs.html:
            raise errors.html_page(knobs.status, knobs.canary)
        raise errors.failure(knobs.status, retry_after_s=knobs.retry_after_s, marker=knobs.canary)
    if knobs.error_body_200:
        answer = errors.failure(500, retry_after_s=0, marker=knobs.canary)
        answer.status = 200
        raise answer


def are_late(knobs: Knobs) -> bool:
    """Does anything happen to a stream after its head? Without, events go out unlooked at."""
    places = (knobs.hang_after, knobs.cut_after, knobs.reset_after, knobs.half_event_after)
    return knobs.garbage or max(*places, knobs.error_event_after, knobs.abort_after) > NEVER


def spoiled(events: Iterator[Event], knobs: Knobs) -> Iterator[Event]:
    """The events until the knobs' moment comes. Raises Cut, Reset, Hang or EngineStopped."""
    for place in itertools.count():
        stop(place, knobs)
        if place == knobs.error_event_after:
            yield 0, errors.event(f"{errors.ENGINE_DEAD} {knobs.canary}".rstrip())
            yield 0, DONE
            return
        if place == knobs.abort_after:
            raise EngineStopped
        made = next(events, None)
        if made is None:
            return
        count, event = made
        if place == knobs.half_event_after:
            yield count, event[: len(event) // 2]
            raise _HALF_ENDS.get(knobs.half_event_end, Cut)
        yield count, garbage(len(event)) if knobs.garbage else event


def stop(place: int, knobs: Knobs) -> None:
    """Raise what is due after `place` events, or bytes of a plain body."""
    if place == knobs.hang_after:
        raise Hang
    if place == knobs.cut_after:
        raise Cut
    if place == knobs.reset_after:
        raise Reset


def garbage(length_bytes: int) -> bytes:
    return random.Random(length_bytes).randbytes(length_bytes)  # noqa: S311 - the same noise every time
