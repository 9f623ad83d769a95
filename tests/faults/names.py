"""A DNS server with one name, which can be moved: for the fault in which a backend's name comes to mean another machine."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_TYPE_A, _CLASS_IN, _TTL_S = 1, 1, 0


class Names:
    """Answers every question for an IPv4 address with `address`, on a UDP port of 127.0.0.1."""

    def __init__(self) -> None:
        self.address = "127.0.0.1"
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                question, client = self._socket.recvfrom(512)
                self.asked += 1
                self._socket.sendto(self._answer(question), client)

    def _answer(self, question: bytes) -> bytes:
        """RFC 1035: the question's own section again, and an address for it; none where another type is asked for."""
        end = question.index(b"\0", 12) + 5
        kind, _class = struct.unpack("!HH", question[end - 4 : end])
        count = 1 if kind == _TYPE_A else 0
        head = question[:2] + struct.pack("!HHHHH", 0x8580, 1, count, 0, 0)
        record = struct.pack("!HHHIH", 0xC00C, _TYPE_A, _CLASS_IN, _TTL_S, 4) + socket.inet_aton(self.address)
        return head + question[12:end] + record * count

    def close(self) -> None:
        self._socket.close()


@contextmanager
def names() -> Iterator[Names]:
    server = Names()
    threading.Thread(target=server.serve, daemon=True).start()
    try:
        yield server
    finally:
        server.close()
