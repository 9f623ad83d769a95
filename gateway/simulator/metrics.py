"""GET /metrics: the names of vLLM 0.32.0 that a gateway reads, with live values."""

from collections.abc import Iterator, Mapping
from typing import Final

from gateway.simulator.engine import Engine

CONTENT_TYPE: Final = "text/plain; version=1.0.0; charset=utf-8"
_FINISHED: Final = ("stop", "length", "abort", "error", "repetition")


def page(engine: Engine, model: str, kv_tokens: int) -> bytes:
    """kv_tokens: what the KV cache holds at most."""
    lines = (
        line for name, kind, meaning, rows in _families(engine, kv_tokens) for line in _text(name, kind, meaning, rows, model)
    )
    return ("\n".join(lines) + "\n").encode()


Rows = list[tuple[Mapping[str, str], float]]


def _families(engine: Engine, kv_tokens: int) -> Iterator[tuple[str, str, str, Rows]]:
    at = {"engine": "0"}
    waiting = float(engine.waiting)
    yield "num_requests_running", "gauge", "Number of requests in model execution batches.", [(at, engine.running)]
    yield "num_requests_waiting", "gauge", "Number of requests waiting to be processed.", [(at, waiting)]
    reasons: Rows = [(at | {"reason": "capacity"}, waiting), (at | {"reason": "deferred"}, 0.0)]
    yield "num_requests_waiting_by_reason", "gauge", "Number of waiting requests by reason.", reasons
    usage = min(1.0, engine.held_tokens / kv_tokens)
    yield "kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.", [(at, usage)]
    queries, hits = "Prefix cache queries, in tokens.", "Prefix cache hits, in tokens."
    yield "prefix_cache_queries_total", "counter", queries, [(at, engine.prompt_tokens)]
    yield "prefix_cache_hits_total", "counter", hits, [(at, engine.cached_tokens)]
    yield "num_preemptions_total", "counter", "Cumulative number of preemption from the engine.", [(at, 0.0)]
    yield "prompt_tokens_total", "counter", "Number of prefill tokens processed.", [(at, engine.prompt_tokens)]
    yield "generation_tokens_total", "counter", "Number of generation tokens processed.", [(at, engine.generated_tokens)]
    done: Rows = [(at | {"finished_reason": reason}, engine.finished[reason]) for reason in _FINISHED]
    yield "request_success_total", "counter", "Count of successfully processed requests.", done
    refused: Rows = [({"reason": "max_num_queued_reqs"}, engine.rejections), ({"reason": "max_num_queued_tokens"}, 0.0)]
    yield "admission_rejections_total", "counter", "Requests refused for a full queue.", refused


def _text(name: str, kind: str, meaning: str, rows: Rows, model: str) -> Iterator[str]:
    yield f"# HELP vllm:{name} {meaning}"
    yield f"# TYPE vllm:{name} {kind}"
    for labels, value in rows:
        shown = ",".join(f'{key}="{text}"' for key, text in sorted({**labels, "model_name": model}.items()))
        yield f"vllm:{name}{{{shown}}} {float(value)}"
