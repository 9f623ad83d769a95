"""The streams recorded from vLLM, and what a client should see of them: worked out with json alone, event by event."""

import json
from pathlib import Path
from typing import Any

import pytest

RECORDED = Path(__file__).parents[2] / "recorded"
STREAMS = sorted(path for path in RECORDED.rglob("*.body") if path.read_bytes().startswith(b"data:"))

every_stream = pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)

COMPLETION_ID = "chatcmpl-0198c0de-0000-7000-8000-000000000000"
ALIAS = 'gen"eral/日本\\'
DONE = "[DONE]"


def event(value: dict[str, Any]) -> bytes:
    """An event as vLLM writes it."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def content_event(content: str, *, index: int = 0, usage: Any = None, finish_reason: str | None = None, **more: Any) -> bytes:
    choice = {
        "index": index,
        "delta": {"content": content},
        "logprobs": None,
        "finish_reason": finish_reason,
        "token_ids": None,
    }
    return event({**HEAD, "choices": [choice], **({} if usage is None else {"usage": usage}), **more})


HEAD = {"id": "chatcmpl-9790d84b5d2f9a0f", "object": "chat.completion.chunk", "created": 1795210757, "model": "tiny"}


def usage(prompt: Any, completion: Any, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "total_tokens": 0, "completion_tokens": completion, **more}


def parsed(stream: bytes) -> list[Any]:
    """The events of a stream, up to an error event; keys in their order."""
    values: list[Any] = []
    for text in stream.decode().split("\n\n")[:-1]:
        data = text.removeprefix("data: ")
        values.append(DONE if data == DONE else json.loads(data, object_pairs_hook=list))
        if values[-1] != DONE and values[-1][0][0] == "error":
            return values[:-1]
    return values


def seen_by_client(stream: bytes, *, shows_usage: bool, shows_running_usage: bool) -> list[Any]:
    """What a client should see of `stream`."""
    return [shown for value in parsed(stream) if (shown := _shown(value, shows_usage, shows_running_usage)) is not None]


def _shown(value: Any, shows_usage: bool, shows_running_usage: bool) -> Any:
    if value == DONE:
        return value
    is_final = ("choices", []) in value
    if is_final and not shows_usage:
        return None
    hidden = {"system_fingerprint", "kv_transfer_params", "ec_transfer_params"}
    if not is_final and not shows_running_usage:
        hidden.add("usage")
    ours = {"id": COMPLETION_ID, "model": ALIAS}
    return [(key, ours.get(key, part)) for key, part in value if key not in hidden]
