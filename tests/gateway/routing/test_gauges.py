"""The gauges out of a page of vLLM's metrics."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.gauges import Load, read_gauges

RECORDED = (Path(__file__).parent / "metrics_of_vllm_0_32.txt").read_bytes()


def test_recorded_page_is_read() -> None:
    gauges = read_gauges(RECORDED)
    assert gauges is not None
    assert gauges.load(7.0) == Load(0, 0, 0.0, 7.0)
    assert gauges.progress == (0.0, 0.0, 0.0, 3443.0, 1592.0)


def test_engines_behind_one_url_are_added_up_and_the_fullest_cache_counts() -> None:
    page = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a"} 3.0
vllm:num_requests_running{engine="1",model_name="a"} 4.0
vllm:num_requests_waiting{engine="0",model_name="a"} 1.0
vllm:num_requests_waiting{engine="1",model_name="a"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="a",reason="capacity"} 99.0
vllm:kv_cache_usage_perc{engine="0",model_name="a"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="a"} 0.75
"""
    gauges = read_gauges(page)
    assert gauges is not None
    assert gauges.load(0.0) == Load(7, 1, 0.75, 0.0)


@pytest.mark.parametrize(
    "line",
    [
        b"vllm:num_requests_running 2",
        b"vllm:num_requests_running{} 2.0",
        b'vllm:num_requests_running{model_name="a} 9 {b",engine="0"} 2.0',
        b'vllm:num_requests_running{model_name="a\\"b\\n"}\t2e0 1795210787000',
        b'vllm:num_requests_running{model_name="\xe6\x97\xa5"} 2.0\r',
    ],
)
def test_labels_and_timestamps_do_not_matter(line: bytes) -> None:
    gauges = read_gauges(line + b"\nvllm:num_requests_waiting 1\n")
    assert gauges is not None
    assert (gauges.running, gauges.waiting, gauges.kv_cache) == (2, 1, 0.0)


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"<html></html>",
        b"# vllm:num_requests_running 3",
        b"vllm:num_requests_waiting 3",
        b"vllm:num_requests_running NaN",
        b"vllm:num_requests_running +Inf",
        b"vllm:num_requests_running -1",
        b"vllm:num_requests_running 1e300",
        b"vllm:num_requests_running_total 3",
        b"x_vllm:num_requests_running 3",
    ],
)
def test_page_that_does_not_say_how_many_run_has_no_gauges(page: bytes) -> None:
    assert read_gauges(page) is None


@given(st.binary(max_size=300))
def test_no_page_is_too_odd(noise: bytes) -> None:
    read_gauges(noise)
    gauges = read_gauges(noise + b"\nvllm:num_requests_running 1\n" + noise)
    assert gauges is not None
    assert gauges.running >= 1
    assert 0 <= gauges.kv_cache <= 1
