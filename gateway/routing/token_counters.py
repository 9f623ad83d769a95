"""TokenCounters: what a backend has counted since its process began, out of vLLM's /metrics. Pure.

Names as of vLLM 0.32.0 (recorded). A prompt counts whole, cached or not; what a backend generated counts even where the
call failed afterwards.
"""

import re
from dataclasses import dataclass
from typing import Final

_SAMPLE: Final = re.compile(
    rb"\n(?:vllm:(prompt_tokens_total|generation_tokens_total|request_success_total)|(process_start_time_seconds))"
    rb"(?:\{.*\})?[ \t]+([^ \t\r\n]+)"
)
_SANE: Final = 1e15  # NaN is not below it either


@dataclass(frozen=True, slots=True)
class TokenCounters:
    """started_s: of the process, Unix seconds; None where the page does not say."""

    prompt_tokens: int
    completion_tokens: int
    requests: int
    started_s: float | None


def read_token_counters(page: bytes) -> TokenCounters | None:
    """Of all engines behind one URL. None: it counts no tokens."""
    found: dict[bytes, float] = {}
    for of_vllm, of_process, text in _SAMPLE.findall(b"\n" + page):
        try:
            value = float(text)
        except ValueError:
            continue
        if 0 <= value <= _SANE:
            name = of_vllm or of_process
            found[name] = found.get(name, 0.0) + value
    if b"prompt_tokens_total" not in found or b"generation_tokens_total" not in found:
        return None
    return TokenCounters(
        round(found[b"prompt_tokens_total"]),
        round(found[b"generation_tokens_total"]),
        round(found.get(b"request_success_total", 0.0)),
        found.get(b"process_start_time_seconds"),
    )
