"""Workers whose boards are kept up to date by Health, in threads of this process."""

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.conf import settings

from gateway.config.documents import Backend, Deployment, Platform, PoolMember
from gateway.routing.board import Board, View
from gateway.routing.exchange import Exchange
from gateway.routing.health import Health
from tests.gateway.config.conftest import WAIT_S, eventually
from tests.simulator import Simulator, simulator
from usage.store import connect

GPU = "gpu-1"


def platform(urls: dict[str, str], *, model: str = "tiny", credential: str | None = None) -> Platform:
    """Backends by name, all in one deployment that expects `model`."""
    backends = {name: Backend(name, url, credential) for name, url in urls.items()}
    pool = Deployment("pool", model, tuple(PoolMember(backend, 1) for backend in backends.values()))
    return Platform(deployments={"pool": pool}, backends=backends)


@dataclass
class Worker:
    """What a gateway worker has of it. configuration: may be replaced while it runs."""

    configuration: Platform
    url: str
    board: Board = field(default_factory=Board)

    def __post_init__(self) -> None:
        self.exchange = Exchange(connect(self.url), uuid.uuid4().hex)
        self.health = Health(self.board, self.exchange, lambda: self.configuration)
        self._thread = threading.Thread(target=self.health.run)
        self._thread.start()

    def view(self, name: str = GPU) -> View:
        return self.board.view(self.backend(name))

    def backend(self, name: str = GPU) -> Backend:
        return self.configuration.backends[name]

    def stop(self) -> None:
        self.health.stop()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()


Start = Callable[..., Worker]


@pytest.fixture
def start() -> Iterator[Start]:
    """start({name: url}, model=...): one more worker, on this test's Valkey or the one at `redis_url`."""
    running: list[Worker] = []

    def one(urls: dict[str, str], *, redis_url: str | None = None, **options: Any) -> Worker:
        running.append(Worker(platform(urls, **options), redis_url or settings.REDIS_URL))
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


def all_say(workers: Sequence[Worker], state: str, name: str = GPU) -> None:
    """Until every worker's board says so."""
    eventually(lambda: all(worker.view(name).state == state for worker in workers))
