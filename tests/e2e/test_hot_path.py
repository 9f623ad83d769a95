"""What a call goes through in a worker, function by function: counted, as a count is the same on any machine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.config import publish as configuration
from gateway.models import Limit
from tests import processes
from tests.bench import functions
from tests.bench.callers import call_on, chat
from tests.e2e.conftest import Stand, await_configuration

CALLS, EVENTS, STREAMS = 200, 200, 4
HELLO: dict[str, Any] = {"model": "general", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
# Whatever of these runs while calls do was asked for by a call: nothing beside them needs it.
NOT_ON_THE_WAY = (
    "/psycopg",
    "/celery/",
    "/kombu/",
    "/requests/",
    "django/db/",
    "django/core/handlers/",
    "rest_framework/views.py",
)

Fresh = Callable[..., processes.Gateway]
Counting = Callable[..., functions.Counts]


@pytest.fixture
def counting(stand: Stand, fresh_gateway: Fresh, tmp_path: Path) -> Counting:
    """Functions of so many requests, as one worker goes through them; limits that refuse are in force."""
    for name in ("tokens_per_day", "requests_per_minute", "concurrent_requests"):
        Limit.objects.create(tenant=stand.acme, name=name, max=1_000_000)
    configuration.publish_all()
    told = tmp_path / "functions.json"
    config = Path(functions.__file__).with_name("counting_gateway.py")
    stand.gateway = fresh_gateway(config=config, SEKISHO_BENCH_FUNCTIONS=str(told))
    await_configuration(stand)

    def count(request: bytes, calls: int, status: int = 200) -> functions.Counts:
        call_on(stand.gateway.port, request, connections=2, seconds=60, calls=8)
        return functions.counted(stand.gateway, told, request, calls, callers=2, status=status)

    return count


def asked_of(counts: functions.Counts, name: str) -> int:
    return sum(n for place, n in counts["python"].items() if place.endswith(f" {name}"))


def test_a_plain_call_goes_through_few_functions_asks_redis_twice_and_waits_once(stand: Stand, counting: Counting) -> None:
    counts = counting(chat(stand.secret, HELLO), CALLS)
    assert asked_of(counts, "complete") >= CALLS, "nothing was counted"
    # To hold, and to settle; the count may begin or end within a call of each caller.
    assert asked_of(counts, "_Wire._expect") == pytest.approx(2 * asked_of(counts, "complete"), abs=4)
    assert asked_of(counts, "Line.ask") == pytest.approx(asked_of(counts, "complete"), abs=4)
    assert [name for name in counts["python"] if any(part in name for part in NOT_ON_THE_WAY)] == []
    # 270 and 310 (2026-11); some of what runs beside the calls is among them, more of it where calls take longer.
    assert sum(counts["python"].values()) / CALLS < 400
    assert sum(counts["c"].values()) / CALLS < 480


def test_an_event_of_a_stream_wakes_nobody(stand: Stand, counting: Counting) -> None:
    stand.vllm.knobs(tokens=EVENTS, tokens_per_s=400)
    counts = counting(chat(stand.secret, HELLO | {"stream": True, "max_tokens": EVENTS}), STREAMS)
    passed = asked_of(counts, "Passage.take")
    assert passed > 0.5 * STREAMS * EVENTS, "most events come as reads of their own"
    assert asked_of(counts, "Relay._next_item") < 0.5 * STREAMS * EVENTS


@pytest.mark.parametrize("asked", [{}, {"stream": True}, {"model": "unknown"}], ids=["plain", "stream", "refusal"])
def test_a_call_leaves_nothing_to_the_collector(stand: Stand, counting: Counting, asked: dict[str, Any]) -> None:
    """What it held is free for the next one at once, still warm. To leave it until thousands had come cost a call 14 %."""
    status = 404 if asked.get("model") else 200
    counts = counting(chat(stand.secret, HELLO | asked), CALLS, status)
    assert asked_of(counts, "ChatCompletions.with_a_key") >= CALLS - 4, "nothing was counted"
    # What runs beside calls leaves some now and then, a call's own circle one of each kind with each call.
    assert {kind: n for kind, n in counts["garbage"].items() if n > CALLS / 4} == {}
