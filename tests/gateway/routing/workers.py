"""Workers whose boards are kept up to date by Health; needs no Django, so that a process of its own can be one."""

import threading
import uuid
from dataclasses import dataclass, field

from gateway.config.documents import Backend, Deployment, Platform, PoolMember
from gateway.routing.board import Board, View
from gateway.routing.exchange import Exchange
from gateway.routing.health import Health
from usage.store import connect

GPU = "gpu-1"
WAIT_S = 20


def platform(urls: dict[str, str], *, model: str = "tiny", credential: str | None = None) -> Platform:
    """Backends by name, all in one deployment that expects `model`."""
    backends = {name: Backend(name, url, credential) for name, url in urls.items()}
    pool = Deployment("pool", model, tuple(PoolMember(backend, 1) for backend in backends.values()))
    return Platform(deployments={"pool": pool}, backends=backends)


@dataclass
class Worker:
    """What a gateway worker has of it, in a thread. configuration: may be replaced while it runs."""

    configuration: Platform
    redis_url: str
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    board: Board = field(default_factory=Board)

    def __post_init__(self) -> None:
        self.health = Health(self.board, Exchange(connect(self.redis_url), self.name), lambda: self.configuration)
        self.thread = threading.Thread(target=self.health.run)
        self.thread.start()

    def view(self, name: str = GPU) -> View:
        return self.board.view(self.backend(name))

    def backend(self, name: str = GPU) -> Backend:
        return self.configuration.backends[name]

    def stop(self) -> None:
        self.health.stop()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
