"""A backend that does what a test tells it, byte by byte, on a real socket."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

from gateway.config.documents import Backend

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
PATIENCE_S = 10.0  # an upper guard: what a test waits for comes long before


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def content_of(chunk: bytes) -> bytes:
    size, _, rest = chunk.partition(b"\r\n")
    assert rest.endswith(b"\r\n")
    assert int(size, 16) == len(rest) - 2
    return rest[:-2]


def sized(body: bytes, *, status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n%b\r\n%b" % (status, len(body), headers, body)


class Exchange:
    """The backend's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.settimeout(PATIENCE_S)

    def wrap(self, context: ssl.SSLContext) -> None:
        self._sock = context.wrap_socket(self._sock, server_side=True)

    def close(self) -> None:
        self._sock.close()

    def request(self) -> bytes:
        """The next request, head and body; b"" when the client has closed."""
        data = b""
        while b"\r\n\r\n" not in data:
            read = self._sock.recv(65_536)
            if not read:
                return b""
            data += read
        head, _, body = data.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < size:
            body += self._sock.recv(65_536)
        return head + b"\r\n\r\n" + body

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def wait_for_close(self) -> None:
        """Returns once the client has closed or reset the connection; raises TimeoutError when it does not."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while self._sock.recv(65_536):
                pass


Script = Callable[[Exchange], None]


class ScriptedBackend:
    """Serves one script a connection, in their order, then refuses."""

    def __init__(self, *scripts: Script) -> None:
        self.faults: list[BaseException] = []
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, args=(scripts,), daemon=True)]
        self.config = Backend("gpu-1", f"http://127.0.0.1:{self._listener.getsockname()[1]}")

    def __enter__(self) -> "ScriptedBackend":
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()
        for thread in self._threads[1:]:
            thread.join(PATIENCE_S)
        if not any(exc):
            assert self.faults == []

    def wait_for_end(self) -> None:
        """Until every accepted connection's script has ended."""
        until(lambda: len(self._threads) > self.accepted)
        for thread in self._threads[1:]:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        assert self.faults == []

    def _accept(self, scripts: tuple[Script, ...]) -> None:
        for script in scripts:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._run, args=(script, sock), daemon=True)
            self.accepted += 1  # before its script runs: whoever has its answer may look here
            thread.start()
            self._threads.append(thread)
        self._listener.close()

    def _run(self, script: Script, sock: socket.socket) -> None:
        exchange = Exchange(sock)
        try:
            script(exchange)
        except BaseException as fault:  # noqa: BLE001 (told to the test when the backend ends)
            self.faults.append(fault)
        finally:
            exchange.close()


@contextlib.contextmanager
def nobody_listens() -> Iterator[int]:
    """A port that refuses: bound, so that no other process takes it meanwhile."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def until(condition: Callable[[], bool]) -> None:
    """Poll `condition` until it holds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@contextlib.contextmanager
def at_the_same_time(*tasks: Callable[[], None]) -> Iterator[None]:
    """Run tasks in threads of their own meanwhile."""
    threads = [threading.Thread(target=task, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(PATIENCE_S)
