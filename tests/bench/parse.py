"""What checking a request costs, in microseconds of CPU. orjson's parse of the same body is the yardstick between machines.

.venv/bin/python -m tests.bench.parse
"""

import time
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from gateway.api.chat_request import for_alias, validate
from gateway.config.documents import Alias, Tenant

ALIAS = Alias(name="general", deployment="tiny", created_s=0, max_output_tokens=1024)
TENANT = Tenant("t1", "acme", "Acme", True, "openai", "drop", "Asia/Tokyo")
OPTIONS: dict[str, Any] = {"model": "general", "temperature": 0.2, "max_tokens": 512, "stream": True}


def conversation(turns: int, chars: int) -> list[dict[str, str]]:
    return [{"role": "user" if turn % 2 == 0 else "assistant", "content": "x" * chars} for turn in range(turns)]


def agent(turns: int) -> list[dict[str, Any]]:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [call]}
    told: dict[str, Any] = {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "x"}]}
    return [{"role": "user", "content": "x"}, *[asked, told] * turns]


BODIES: dict[str, dict[str, Any]] = {
    "a question": {**OPTIONS, "messages": conversation(2, 150)},
    "a conversation": {**OPTIONS, "messages": conversation(34, 290)},
    "an agent's 100 calls": {**OPTIONS, "messages": agent(100)},
    "hostile: 4,096 messages": {**OPTIONS, "messages": agent(2_047)},
    "hostile: 180,000 values": {
        **OPTIONS,
        "messages": [{"role": "user", "content": [{"type": "refusal", "refusal": ""}] * 1_000}] * 60,
    },
}


def cpu_us(step: Callable[[], object]) -> float:
    """The least of seven rounds: other work on the machine only ever adds."""
    rounds = max(3, int(0.1 / max(timeit.timeit(step, number=3) / 3, 1e-6)))
    return min(timeit.repeat(step, number=rounds, repeat=7, timer=time.process_time)) / rounds * 1e6


def main() -> None:
    print(f"{'body':26}{'bytes':>9}{'orjson':>10}{'validate':>10}{'for_alias':>10}  us")
    for name, body in BODIES.items():
        text = orjson.dumps(body)
        parsed = orjson.loads(text)
        request = validate(parsed)
        steps = (partial(orjson.loads, text), partial(validate, parsed), partial(for_alias, request, ALIAS, TENANT))
        cost = "".join(f"{cpu_us(step):10.1f}" for step in steps)
        print(f"{name:26}{len(text):9}{cost}")


if __name__ == "__main__":
    main()
