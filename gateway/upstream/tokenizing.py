"""Asks a backend how many tokens a prompt is: where a bound would refuse a call that fits. Never longer than its budget."""

import hashlib
import time
from collections import OrderedDict
from typing import Any, Final

import orjson
from django.conf import settings

from gateway.config.documents import Backend, Deployment
from gateway.routing.board import board
from gateway.upstream.attempt import client
from gateway.upstream.errors import UpstreamError

BUDGET_S: Final = 0.15
ANSWER_MAX_BYTES: Final = 16 * 1024 * 1024  # the ids of all tokens come along
CACHED_PROMPTS: Final = 4096
_PARTS: Final = ("messages", "tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message")

_counts: OrderedDict[bytes, int] = OrderedDict()


def count_prompt_tokens(deployment: Deployment, fields: dict[str, Any]) -> int | None:
    """The prompt's tokens as the backend counts them; None when it does not say so within BUDGET_S.

    fields: of the request as it goes upstream. Counts are kept by a hash of the prompt; no prompt is.
    """
    prompt = {"model": deployment.served_model} | {name: fields[name] for name in _PARTS if name in fields}
    body = orjson.dumps(prompt)
    digest = hashlib.blake2b(body, digest_size=16, person=b"prompt").digest()
    if (known := _counts.get(digest)) is not None:
        return known
    count = _ask(deployment, body)
    if count is not None:
        _counts[digest] = count
        if len(_counts) > CACHED_PROMPTS:
            _counts.popitem(last=False)
    return count


def _ask(deployment: Deployment, body: bytes) -> int | None:
    deadline = time.monotonic() + BUDGET_S
    backend = _idlest(deployment)
    if backend is None:
        return None
    try:
        response = client.open_call(
            backend,
            "/tokenize",
            body,
            headers={},
            connect_s=min(BUDGET_S, settings.CONNECT_MAX_S),
            first_byte_deadline=deadline,
        )
    except UpstreamError:
        return None
    try:
        answer = orjson.loads(response.read_all(ANSWER_MAX_BYTES, deadline)) if response.status == 200 else {}
        response.close(reuse=True)
    except (UpstreamError, orjson.JSONDecodeError):
        return None
    finally:
        response.close(reuse=False)
    count = answer.get("count") if isinstance(answer, dict) else None
    return count if type(count) is int and count > 0 else None


def _idlest(deployment: Deployment) -> Backend | None:
    """Of those that are well. Counting costs no place, and is no trial for one that is not."""
    well = [m.backend for m in deployment.members if not m.backend.is_draining and board.view(m.backend).readiness]
    return min(well, key=lambda backend: board.view(backend).in_flight, default=None)
