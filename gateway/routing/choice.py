"""What a call brings to the choice of its backend. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Facts:
    """prompt_tokens: the likely count. prefix_digest: affinity.beginning() of the conversation, b"" for none to keep."""

    tenant_id: str
    request_id: str
    prompt_tokens: int
    prefix_digest: bytes = b""
