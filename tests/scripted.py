"""A backend that answers each request with the bytes it was given, whatever was asked."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class ScriptedBackend:
    """reply: the raw answer, head and framing included; after it the connection is closed. asked: the requests so far."""

    def __init__(self) -> None:
        self.reply = b""
        self.asked: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            received = b""
            while b"\r\n\r\n" not in received or len(received) < self._expected(received):
                data = client.recv(65536)
                if not data:
                    return
                received += data
            self.asked.append(received)
            client.sendall(self.reply)

    @staticmethod
    def _expected(received: bytes) -> int:
        head, _, _ = received.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        return len(head) + 4 + (int(lengths[0]) if lengths else 0)


@contextmanager
def scripted_backend() -> Iterator[ScriptedBackend]:
    backend = ScriptedBackend()
    try:
        yield backend
    finally:
        backend.close()
