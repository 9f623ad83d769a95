"""The counters of vLLM's /metrics, as it really writes them."""

from pathlib import Path

from gateway.routing.token_counters import TokenCounters, read_token_counters

PAGE = b"""# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
process_start_time_seconds 1.79521073326e+09
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 3443.0
vllm:prompt_tokens_total{engine="1",model_name="ti}ny"} 7.0
vllm:prompt_tokens_created{engine="0",model_name="tiny"} 1.79e+09
vllm:generation_tokens_total{engine="0",model_name="tiny"} 1592.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="tiny"} 14.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="tiny"} 107.0
"""


def test_engines_and_reasons_are_added_up() -> None:
    assert read_token_counters(PAGE) == TokenCounters(3450, 1592, 121, 1795210733.26)


def test_page_without_counters_or_with_nonsense_is_none() -> None:
    for page in (b"", b"<html>", PAGE.replace(b"3443.0", b"NaN").replace(b" 7.0", b" -1"), b"vllm:prompt_tokens_total x\n"):
        assert read_token_counters(page) is None


def test_page_of_a_real_server_is_read() -> None:
    page = (Path(__file__).parent / "metrics_of_vllm_0_32.txt").read_bytes()
    counters = read_token_counters(page)
    assert counters is not None
    assert counters.started_s is not None
    assert counters.prompt_tokens > counters.requests > 0
