"""What reading a request's head costs, and sending an answer, in CPU: .venv/bin/python -m tests.bench.server

The fast loop's steps beside the same ones of stock gunicorn. A search in the head is the yardstick between machines.
"""

import sys
import timeit
from collections.abc import Callable
from time import process_time
from typing import Any

from gunicorn.config import Config
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from gunicorn.http.wsgi import Response, create

from gateway.server.plain import constants, plain_request
from gateway.server.reply import Reply

HEADERS = {
    "Host": "gateway.test:8001",
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "Connection": "keep-alive",
    "Content-Type": "application/json",
    "Content-Length": "2",
    "User-Agent": "OpenAI/Python 3.1.0",
    "X-Stainless-Lang": "python",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Runtime": "CPython",
    "x-stainless-retry-count": "0",
    "x-stainless-read-timeout": "600",
    "Authorization": "Bearer sk-sekisho-" + "a" * 50,
}
HEAD = "".join(("POST /v1/chat/completions HTTP/1.1\r\n", *(f"{n}: {v}\r\n" for n, v in HEADERS.items()), "\r\n")).encode()
ANSWER = [(f"x-ratelimit-{number}", "1000000") for number in range(8)] + [("content-length", "1000")]
CLIENT, SERVER = ("10.0.0.1", 40000), ("127.0.0.1", 8001)


class Sink:
    """A socket that takes everything."""

    def send(self, data: bytes) -> int:
        return len(data)

    sendall = send


def configured() -> Any:
    cfg = Config()
    cfg.set("http_parser", "python")
    cfg.set("forwarded_allow_ips", "")
    return cfg


def stock_head(cfg: Any) -> tuple[Any, Any]:
    request = Request(cfg, IterUnreader([HEAD + b"{}"]), CLIENT)
    return request, create(request, Sink(), CLIENT, SERVER, cfg)


def stock_answer(cfg: Any, request: Any, body: bytes) -> None:
    response = Response(request, Sink(), cfg)
    response.start_response("200 OK", ANSWER)
    response.write(body)
    response.close()


def fast_answer(body: bytes) -> None:
    reply = Reply(Sink())
    reply.start_response("200 OK", ANSWER)
    reply.send((body,))


def cpu_us(step: Callable[[], object]) -> float:
    """The least of the rounds: other work on the machine only ever adds."""
    return min(timeit.repeat(step, number=500, repeat=15, timer=process_time)) / 500 * 1e6


def main() -> None:
    cfg, body = configured(), b"x" * 1000
    shared = constants(cfg, SERVER)
    request, _ = stock_head(cfg)
    figures = {
        "yardstick": lambda: HEAD.find(b"\r\n\r\n"),
        "head, fast": lambda: plain_request(HEAD + b"{}", shared, fields_max=100),
        "head, stock": lambda: stock_head(cfg),
        "answer, fast": lambda: fast_answer(body),
        "answer, stock": lambda: stock_answer(cfg, request, body),
    }
    for name, step in figures.items():
        sys.stdout.write(f"{name:16}{cpu_us(step):8.2f} us\n")


if __name__ == "__main__":
    main()
