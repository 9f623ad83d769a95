"""Workers in threads of this process, the backend that they look after, and a Redis that they share with nobody."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from portal import embedded
from tests.gateway.routing.workers import Worker, platform
from tests.simulator import Simulator, simulator

Start = Callable[..., Worker]


@pytest.fixture(scope="session")
def redis_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey on which no gateway of other tests takes its share of the probing, and which may be frozen."""
    server = embedded.start_valkey(tmp_path_factory.mktemp("valkey-apart"), durable=False)
    yield server.url
    server.stop()


@pytest.fixture
def store(redis_apart: str) -> Iterator[redis.Redis]:
    """That Valkey, empty."""
    with redis.Redis.from_url(redis_apart) as client:
        client.flushall()
        yield client


@pytest.fixture
def start(redis_apart: str, store: redis.Redis) -> Iterator[Start]:
    """start({name: url}, model=...): one more worker, on `store` or on the Valkey at `redis_url`."""
    running: list[Worker] = []

    def one(urls: dict[str, str], *, redis_url: str = redis_apart, **options: Any) -> Worker:
        running.append(Worker(platform(urls, **options), redis_url))
        return running[-1]

    yield one
    for worker in running:
        worker.stop()


@pytest.fixture(scope="session")
def shared_vllm() -> Iterator[Simulator]:
    with simulator() as running:
        yield running


@pytest.fixture
def vllm(shared_vllm: Simulator) -> Simulator:
    """A simulated vLLM that serves `tiny`, as it was started."""
    shared_vllm.reset()
    return shared_vllm
