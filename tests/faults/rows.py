"""The faults, each as it is brought about. What must hold of every one of them is in test_matrix.py."""

import time
from typing import Final

from tests.faults.field import FIRST_TOKEN_MAX_S, Fault, Field

# Streams long enough to be in the middle of when something happens.
_LONG: Final[dict[str, object]] = {"tokens_per_s": 40, "tokens": 24}
_GATHER_S: Final = 0.4  # until calls wait where they are wanted to


def _turned(**knobs: object):  # type: ignore[no-untyped-def]
    return lambda here: here.sick.sim.knobs(**knobs)


def _killed_while(**knobs: object):  # type: ignore[no-untyped-def]
    """SIGKILL, once calls wait at the backend in the way that the knobs make them."""

    def befall(here: Field) -> None:
        here.sick.sim.knobs(**knobs)
        time.sleep(_GATHER_S)
        here.sick.sim.kill()

    return befall


def _generates_again(here: Field) -> None:
    """For others too: an engine whose gauges stand still is not tried for a minute."""
    here.sick.make_well()
    here.sick.ask()


def _hangs_for_a_while(here: Field) -> None:
    here.sick.sim.knobs(engine_hung=True)


FAULTS: Final = (
    Fault("killed before the first byte", _killed_while(hang=True)),
    Fault("killed between head and first event", _killed_while(first_token_ms=FIRST_TOKEN_MAX_S * 900)),
    Fault("killed in the middle of answers", _killed_while(), usual=_LONG, breaks=True, recorded=frozenset({"upstream_cut"})),
    Fault(
        "stopped by SIGTERM (finish_reason abort)",
        lambda here: here.sick.sim.stop(),
        usual=_LONG,
        breaks=True,
        recorded=frozenset({"upstream_aborted", "upstream_cut"}),
    ),
    Fault("refuses connections", lambda here: here.sick.sim.refuse(), lambda here: here.sick.sim.accept()),
    Fault("shutting down (500 cannot schedule), health 200", _turned(engine_dead=True)),
    Fault("takes requests and never answers", _turned(hang=True), _generates_again),
    Fault(
        "engine hung, health 200, gauges still",
        _hangs_for_a_while,
        usual=_LONG,
        breaks=True,
        recorded=frozenset({"upstream_stalled"}),
        lasts_s=5.0,
        long_s=10.0,
    ),
    Fault("hangs in the middle of streams", _turned(hang_after=3), breaks=True, recorded=frozenset({"upstream_stalled"})),
    Fault("one byte a second", _turned(drip_bytes_per_s=1)),
    Fault("500 storm", _turned(status=500, html=True)),
    Fault("502 storm", _turned(status=502)),
    Fault("503 storm (its queue is full)", _turned(status=503), is_seen=False),
    Fault("cut in the middle of streams", _turned(cut_after=3), breaks=True, recorded=frozenset({"upstream_cut"})),
    Fault(
        "reset in the middle of a chunk",
        _turned(half_event_after=3, half_event_end="reset"),
        breaks=True,
        streams_alone=True,
        recorded=frozenset({"upstream_cut"}),
    ),
    Fault(
        "half an event, then silence",
        _turned(half_event_after=3, half_event_end="silence"),
        breaks=True,
        streams_alone=True,
        recorded=frozenset({"upstream_stalled"}),
    ),
    Fault(
        "an error event in the middle of streams",
        _turned(error_event_after=3),
        usual={"tokens_per_s": 40},  # slow: the events before it are out by then
        breaks=True,
        streams_alone=True,
        recorded=frozenset({"upstream_error_event"}),
    ),
    Fault("an error event for a first event", _turned(error_event_after=0), streams_alone=True),
    Fault("status 200 and an error body", _turned(error_body_200=True)),
    Fault("garbage instead of an answer", _turned(garbage=True)),
    Fault("wrong content type", _turned(content_type="text/html"), streams_alone=True),
    Fault("wrong usage", _turned(usage_lies="negative"), is_seen=False, recorded=frozenset({"upstream_wrong_usage"})),
    Fault("an event of 10 MB", lambda _here: None, rare="[[sim big_event_bytes=10000000 tokens=3]]", is_seen=False),
    Fault("its clock is a day ahead", _turned(clock_skew_s=86_400), is_seen=False),
    Fault(
        "closes idle connections at once",
        lambda here: here.sick.revive("--keep-alive-s", "0.02"),
        lambda here: here.sick.revive(),
        is_seen=None,  # it is started anew for it, and cut off
        breaks=True,
        recorded=frozenset({"upstream_cut"}),
    ),
    Fault("another model all of a sudden", _turned(models_name="other")),
)
