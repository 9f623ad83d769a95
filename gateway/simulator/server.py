"""The listening socket, the connections on it, and the ways a server goes down."""

import socket
import time
from typing import Any, Final

import gevent

from gateway.simulator import faults, http11, routes
from gateway.simulator.connection import ClientGone, Connection
from gateway.simulator.engine import EngineStopped
from gateway.simulator.model import Model
from gateway.simulator.reply import Reply

IDLE_S: Final = 5.0  # uvicorn's keep-alive: 4.7 s were recorded
_BACKLOG: Final = 4096
_ABORT_S: Final = 5.0  # for aborted answers to reach slow clients
_CHUNK_REST_BYTES: Final = 16
LINGER_S: Final = 4.5  # a draining server stays that long after its last request (recorded: 4.3 and 4.7 s)


class Server:
    """Bound when made, so that the port is known and others are refused it; serve() begins to listen."""

    def __init__(self, model: Model, host: str, port: int, *, keep_alive_s: float = IDLE_S) -> None:
        self.model = model
        self._keep_alive_s = keep_alive_s
        self._listener = _bound(host, port)
        self._connections: set[Connection] = set()
        self._acceptable: Any = None

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    def serve(self, *, slow_start_s: float = 0.0) -> None:
        """Listen, and return at once. Until slow_start_s are over connections are refused, as while vLLM loads its weights."""
        gevent.spawn(self._close_idle)
        gevent.spawn_later(slow_start_s, self._listen)

    def refuse(self) -> None:
        """Connections are refused from now on; those there are stay."""
        host, port = self.address
        self._close_listener()
        self._listener = _bound(host, port)

    def _close_listener(self) -> None:
        if self._acceptable is not None:
            self._acceptable.stop()
            self._acceptable.close()
            self._acceptable = None
        self._listener.close()

    def accept(self) -> None:
        """The end of refuse()."""
        if self._acceptable is None:
            self._listen()

    def _listen(self) -> None:
        self._listener.listen(_BACKLOG)
        self._acceptable = gevent.get_hub().loop.io(self._listener.fileno(), 1)
        self._acceptable.start(self._accept)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            gevent.spawn(self._serve_connection, sock)

    def _serve_connection(self, sock: socket.socket) -> None:
        connection = Connection(sock)
        self._connections.add(connection)
        try:
            while self._serve_one(connection):
                connection.idle_since_s = time.monotonic()
        except faults.Cut:
            connection.try_flush()
        except faults.Reset as reset:
            if isinstance(reset, faults.ChunkReset):
                connection.hold_back(_CHUNK_REST_BYTES)
            connection.try_flush()
            gevent.sleep(faults.BEFORE_RESET_S)
            connection.reset()
        except (ClientGone, EngineStopped):
            connection.try_flush()
        finally:
            self._connections.discard(connection)
            connection.close()

    def _serve_one(self, connection: Connection) -> bool:
        """Read and answer one request; False when there is to be no other on this connection."""
        try:
            request = connection.next_request()
        except http11.Malformed:
            connection.write(http11.malformed())
            connection.flush()
            return False
        if request is None:
            return False
        reply = Reply(connection, request, shows_request_id=self.model.served.shows_request_ids)
        with connection.watched():
            routes.serve(self.model, request, reply)
        return reply.keeps_alive

    def _close_idle(self) -> None:
        while True:
            gevent.sleep(min(0.25, self._keep_alive_s))
            for connection in list(self._connections):
                connection.end_idle(self._keep_alive_s)

    def stop(self, shutdown_timeout_s: float = 0.0) -> None:
        """As vLLM on SIGTERM: close the port and end what runs with finish_reason abort.

        With a timeout what runs may finish first. As long, /health is 200 and every new request gets 500.
        """
        if shutdown_timeout_s:
            self._drain(shutdown_timeout_s)
        self._close_listener()
        self.model.engine.abort()
        self._wait_until(time.monotonic() + _ABORT_S)

    def _drain(self, timeout_s: float) -> None:
        self.model.engine.leave()
        deadline_s = time.monotonic() + timeout_s
        self._wait_until(deadline_s)
        gevent.sleep(max(0.0, min(LINGER_S, deadline_s - time.monotonic())))

    def _wait_until(self, deadline_s: float) -> None:
        """Until no call is open, or the deadline."""
        while self.model.engine.open_calls and time.monotonic() < deadline_s:
            gevent.sleep(0.01)


def _bound(host: str, port: int) -> socket.socket:
    """Not yet listening: the port is ours, and connections are refused."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setblocking(False)
    listener.bind((host, port))
    return listener
