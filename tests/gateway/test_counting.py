"""The worker reads the counters of real sockets, and leaves out what does not answer."""

from datetime import timedelta

import pytest
import requests
from django.utils import timezone

from gateway.counting import count_backends
from gateway.models import Backend
from tests.simulator import Simulator, simulator
from usage.models import BackendHour, BackendReading

pytestmark = pytest.mark.django_db


def call(vllm: Simulator) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 5}
    assert requests.post(f"{vllm.url}/v1/chat/completions", json=body, timeout=10).status_code == 200


def test_tokens_between_two_readings_are_written_down_and_a_dead_backend_holds_up_nothing() -> None:
    with simulator("--model", "tiny") as vllm:
        Backend.objects.create(name="gpu-1", url=vllm.url)
        Backend.objects.create(name="gpu-2", url="http://127.0.0.1:9")
        call(vllm)
        assert count_backends() == 1
        before = BackendReading.objects.get()
        assert before.completion_tokens > 0
        BackendReading.objects.update(read_at=timezone.now() - timedelta(seconds=60))
        call(vllm)
        count_backends()
        after = BackendReading.objects.get()
        assert sum(BackendHour.objects.values_list("completion_tokens", flat=True)) == (
            after.completion_tokens - before.completion_tokens
        )
        assert after.completion_tokens > before.completion_tokens
