"""A client that sees every byte: one raw request, and what came back, chunk by chunk."""

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TIMEOUT_S = 20


@dataclass
class Answer:
    """chunks: of a chunked body, as framed. end: done when it is whole; fin, reset or open (nothing more came) when not."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    chunks: list[bytes] = field(default_factory=list)
    end: str = "done"

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.headers]

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of every event as JSON, [DONE] as that text."""
        data = [part.removeprefix(b"data: ") for part in self.body.split(b"\n\n") if part]
        return [json.loads(d) if d != b"[DONE]" else "[DONE]" for d in data]

    @property
    def text(self) -> str:
        """The content of the first choice, put together."""
        choices = [c for e in self.events if e != "[DONE]" for c in e["choices"] if c["index"] == 0]
        return "".join(c["delta"].get("content") or "" for c in choices)


class Client:
    """One connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, timeout=TIMEOUT_S)
        self._buffer = b""
        self._end = "done"

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def chat(self, **body: Any) -> None:
        self.send(post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}], **body}))

    def _more(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            self._end = "reset"
            return False
        except TimeoutError:
            self._end = "open"
            return False
        if not data:
            self._end = "fin"
        self._buffer += data
        return bool(data)

    def read_head(self) -> tuple[int, list[tuple[str, str]]]:
        while b"\r\n\r\n" not in self._buffer:
            assert self._more(), f"no head: {self._end} after {self._buffer!r}"
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        status = int(first.split(" ")[1])
        return self.read_head() if status == 100 else (status, [(name, value) for name, value in pairs])

    def read_chunk(self) -> bytes | None:
        """The next chunk, b"" for the last one, None when the connection ends before."""
        while b"\r\n" not in self._buffer:
            if not self._more():
                return None
        size, _, rest = self._buffer.partition(b"\r\n")
        length = int(size, 16)
        while len(rest) < length + 2:
            if not self._more():
                return None
            rest = self._buffer.partition(b"\r\n")[2]
        self._buffer = rest[length + 2 :]
        return rest[:length]

    def read(self, *, is_head: bool = False) -> Answer:
        """One whole answer, or as much of it as comes."""
        status, headers = self.read_head()
        answer = Answer(status, headers, b"")
        length = answer.header("content-length")
        if answer.header("transfer-encoding") == "chunked":
            while chunk := self.read_chunk():
                answer.chunks.append(chunk)
            answer.body = b"".join(answer.chunks) + (self._buffer if chunk is None else b"")
        elif length is not None:
            while len(self._buffer) < int(length) and not is_head and self._more():
                pass
            answer.body, self._buffer = self._buffer[: int(length)], self._buffer[int(length) :]
        else:
            while self._more():
                pass
            answer.body, self._buffer = self._buffer, b""
        answer.end = self._end
        return answer


def post(path: str, body: Mapping[str, Any], *headers: str) -> bytes:
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: a", "content-type: application/json", f"content-length: {len(data)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data


def exchange(address: tuple[str, int], request: bytes) -> Answer:
    """Send `request` on a connection of its own and read what comes."""
    with Client(address) as client:
        client.send(request)
        return client.read(is_head=request.startswith(b"HEAD"))


def chat(address: tuple[str, int], content: str = "Hello", **body: Any) -> Answer:
    """One chat call with one user message."""
    return exchange(address, post("/v1/chat/completions", {"messages": [{"role": "user", "content": content}], **body}))
