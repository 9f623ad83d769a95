"""TokenCounters: what a backend has counted since its process began, out of vLLM's /metrics. Pure.

Names as of vLLM 0.32.0 (recorded). A prompt counts whole, cached or not; what a backend generated counts even where the
call failed afterwards.
"""

from dataclasses import dataclass
from typing import Final

from gateway.routing.samples import pattern, read_samples

_PROMPT: Final = "vllm:prompt_tokens_total"
_COMPLETION: Final = "vllm:generation_tokens_total"
_REQUESTS: Final = "vllm:request_success_total"
_STARTED: Final = "process_start_time_seconds"
_SAMPLES: Final = pattern(_PROMPT, _COMPLETION, _REQUESTS, _STARTED)


@dataclass(frozen=True, slots=True)
class TokenCounters:
    """started_s: of the process, Unix seconds; None where the page does not say."""

    prompt_tokens: int
    completion_tokens: int
    requests: int
    started_s: float | None


def read_token_counters(page: bytes) -> TokenCounters | None:
    """Of all engines behind one URL. None: it counts no tokens."""
    found = {name: sum(values) for name, values in read_samples(page, _SAMPLES).items()}
    if _PROMPT not in found or _COMPLETION not in found:
        return None
    return TokenCounters(
        round(found[_PROMPT]), round(found[_COMPLETION]), round(found.get(_REQUESTS, 0.0)), found.get(_STARTED)
    )
