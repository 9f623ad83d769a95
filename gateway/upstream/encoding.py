"""The request as the backend gets it: checked fields, and those that the gateway alone sets."""

import hmac
from base64 import urlsafe_b64encode
from functools import lru_cache
from hashlib import sha256
from typing import Any

import orjson
from django.conf import settings

from gateway.api.chat_request import ChatRequest
from gateway.config.documents import Deployment, Tenant

# Usage is asked for always, running too: a stream that ends early is metered by the last count it brought.
_STREAMED = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}

_CONSTRAINTS = frozenset({"response_format", "structured_outputs", "tools"})


def encode(fields: dict[str, Any], request: ChatRequest, deployment: Deployment, tenant: Tenant) -> bytes:
    """JSON for /v1/chat/completions of vLLM. fields: as for_alias made them."""
    body = {"model": deployment.served_model, **fields, "cache_salt": cache_salt(tenant.id, request.cache_salt)}
    if request.stream:
        body |= _STREAMED
    if deployment.schedules_by_priority:
        body["priority"] = tenant.priority
    return orjson.dumps(body)


class Bodies:
    """The request as each deployment gets it, encoded when it is asked for, once. fields: as for_alias made them."""

    __slots__ = ("_encoded", "_fields", "_first", "_request", "_tenant")

    def __init__(self, fields: dict[str, Any], request: ChatRequest, tenant: Tenant, first: Deployment) -> None:
        self._fields = fields
        self._request = request
        self._tenant = tenant
        self._first = first.name
        self._encoded: dict[tuple[str, int | None], bytes] = {}

    def of(self, deployment: Deployment) -> bytes:
        """With the output limit that stands in the fields now. One that takes over gets none beyond its context."""
        max_tokens, context = self._fields.get("max_tokens"), deployment.max_model_len
        key = (deployment.name, max_tokens)
        if key not in self._encoded:
            fields = self._fields
            if deployment.name != self._first and max_tokens and context and max_tokens > context:
                fields = fields | {"max_tokens": context}
            self._encoded[key] = encode(fields, self._request, deployment, self._tenant)
        return self._encoded[key]


def cache_salt(tenant_id: str, wished: str | None) -> str:
    """256 bits in 43 characters: equal for all calls of a tenant, unknowable to others, so that no tenant can time
    another's prefix cache. A client's own salt parts the tenant's cache further."""
    return _label("cache-salt", tenant_id, wished or "")


def end_user_label(tenant: Tenant, user: str) -> str:
    """A name for the client's `user` that tells equal from different, and nothing else."""
    return _label("end-user", tenant.id, user)[:22]


@lru_cache(maxsize=4096)
def _label(purpose: str, tenant_id: str, text: str) -> str:
    message = b"\0".join(part.encode() for part in (purpose, tenant_id, text))
    return urlsafe_b64encode(hmac.new(settings.SALT_KEY.encode(), message, sha256).digest()).rstrip(b"=").decode()


def is_constrained(fields: dict[str, Any]) -> bool:
    """Does it bind the form of its answer? vLLM compiles that for it alone, and answers 500 to what it stumbles over."""
    return not _CONSTRAINTS.isdisjoint(fields)


def facts_of(messages: list[dict[str, Any]]) -> dict[str, int]:
    """What measure() asks of the messages: their number, and that and the bytes of images and sounds among their parts."""
    media = media_bytes = 0
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                if type(part) is dict and part.get("type") not in ("text", "refusal", "thinking"):
                    media += 1
                    media_bytes += len(orjson.dumps(part))
    return {"messages": len(messages), "media": media, "media_bytes": media_bytes}
