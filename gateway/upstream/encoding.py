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


def encode(fields: dict[str, Any], request: ChatRequest, deployment: Deployment, tenant: Tenant) -> bytes:
    """JSON for /v1/chat/completions of vLLM. fields: as for_alias made them."""
    body = {"model": deployment.served_model, **fields, "cache_salt": cache_salt(tenant.id, request.cache_salt)}
    if request.stream:
        body |= _STREAMED
    if deployment.schedules_by_priority:
        body["priority"] = tenant.priority
    return orjson.dumps(body)


def cache_salt(tenant_id: str, wished: str | None) -> str:
    """256 bits in 43 characters: equal for all calls of a tenant, unknowable to others, so that no tenant can time
    another's prefix cache. A client's own salt parts the tenant's cache further."""
    return _label("cache-salt", tenant_id, wished or "")


def end_user_label(tenant: Tenant, user: str | None) -> str | None:
    """A name for the client's `user` that tells equal from different, and nothing else."""
    return _label("end-user", tenant.id, user)[:22] if user else None


@lru_cache(maxsize=4096)
def _label(purpose: str, tenant_id: str, text: str) -> str:
    message = b"\0".join(part.encode() for part in (purpose, tenant_id, text))
    return urlsafe_b64encode(hmac.new(settings.SALT_KEY.encode(), message, sha256).digest()).rstrip(b"=").decode()


def facts_of(messages: list[dict[str, Any]]) -> dict[str, int]:
    """What measure() asks of the messages: their number, and that and the bytes of images and sounds among their parts."""
    media = media_bytes = 0
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                if part.get("type") not in ("text", "refusal", "thinking"):
                    media += 1
                    media_bytes += len(orjson.dumps(part))
    return {"messages": len(messages), "media": media, "media_bytes": media_bytes}
