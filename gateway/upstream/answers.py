"""A whole answer of vLLM, made into what the client may see. Pure.

Wire format: vllm/entrypoints/openai/chat_completion/protocol.py of vLLM 0.32, recorded in tests/recorded/*.resp.
"""

from typing import Any, Final

import orjson

from gateway.upstream.errors import ErrorBody, GenerationAborted, MalformedAnswer

HIDDEN_KEYS: Final = ("system_fingerprint", "kv_transfer_params", "ec_transfer_params")


def read_answer(body: bytes) -> dict[str, Any]:
    """The answer as an object with choices. A 200 may hold an error, or a text cut short, all the same.

    Raises MalformedAnswer, ErrorBody, GenerationAborted.
    """
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise MalformedAnswer("an answer that is not JSON") from None
    if not isinstance(answer, dict):
        raise MalformedAnswer("an answer that is not a JSON object")
    if answer.get("error") is not None:
        raise ErrorBody
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        raise MalformedAnswer("an answer without choices")
    for choice in choices:
        if not isinstance(choice, dict):
            raise MalformedAnswer("a choice that is not an object")
        if choice.get("finish_reason") == "abort":
            raise GenerationAborted
    return answer


def shown(answer: dict[str, Any], *, completion_id: str, alias: str, created_s: int) -> bytes:
    """The answer as the client sees it: our id, clock and alias, nothing of what backs it; all else as vLLM said it."""
    for key in HIDDEN_KEYS:
        answer.pop(key, None)
    answer["id"] = completion_id
    answer["created"] = created_s
    answer["model"] = alias
    return orjson.dumps(answer)
