"""The fast loop against the stock one: what it takes, gunicorn takes to the same meaning; both answer alike, byte for byte."""

import random
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from gunicorn.http.wsgi import create

from gateway.server.plain import HEAD_MAX_BYTES, constants, is_suited, plain_request
from gateway.server.reply import SizedInput
from gateway.server.strictness import head_problem
from tests import processes
from tests.gateway.server.test_worker import GET, POST, REFUSED

CLIENT = ("10.0.0.1", 40000)
SERVER = ("127.0.0.1", 8001)
CHANGES = 6000
# Of the environ: what the fast loop leaves out, or has made anew.
NOT_COMPARED = {"wsgi.errors", "wsgi.early_hints", "wsgi.input", "gunicorn.socket"}
PLAIN = (
    GET + b"\r\n",
    GET + b"Connection: keep-alive\r\nX-Empty:\r\nX-Spaces: \t a b \t\r\n\r\n",
    POST + b"Content-Length: 2\r\n\r\n{}",
    POST + b"Content-Length: 002\r\nAuthorization: Bearer sk-a_b\r\n\r\n{}" + GET + b"\r\n",
    POST + b"Content-Length: 0\r\nX-Latin: \xe9\r\nx-stainless-retry-count: 0\r\n\r\n",
    b"POST /v1/chat/completions/ HTTP/1.1\r\nhost: [::1]:80\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nabc",
)
OTHER = (
    GET + b"Expect: 100-continue\r\n\r\n",
    GET + b"Connection: close\r\n\r\n",
    GET + b"X_Under: 1\r\n\r\n",
    GET + b"X-Two: 1\r\nX-Two: 2\r\n\r\n",
    GET + b"Upgrade: h2c\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    POST + b"Content-Length: +2\r\n\r\n{}",
    POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    b"GET /v1/models?x=1 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    b"GET //v1/models HTTP/1.1\r\nHost: a.test\r\n\r\n",
    b"GET /v1/mod%65ls HTTP/1.1\r\nHost: a.test\r\n\r\n",
    b"GET /v1/models HTTP/1.0\r\nHost: a.test\r\n\r\n",
    b"HEAD /v1/models HTTP/1.1\r\nHost: a.test\r\n\r\n",
    b"\r\n" + GET + b"\r\n",
    GET + b"X-Long: " + b"a" * HEAD_MAX_BYTES + b"\r\n\r\n",
    GET + b"".join(b"X-%d: 1\r\n" % number for number in range(120)) + b"\r\n",
    # A folded line and a bare line feed: as many line ends as headers, all the same.
    b"GET /v1/models HTTP/1.1\r\nHost: a.test\nX-A: 1\r\n b\r\n\r\n",
    GET,
    GET[:20],
)
PIECES = (
    *(
        b"\r",
        b"\n",
        b"\r\n",
        b"\n\n",
        b"\r\n ",
        b"\r\n\t",
        b" ",
        b"\t",
        b":",
        b"::",
        b"_",
        b"-",
        b"\0",
        b"\x7f",
        b"\x80",
        b"\xff",
    ),
    *(
        b"%",
        b"/",
        b"//",
        b"#",
        b"?",
        b"*",
        b"HTTP/1.0",
        b"HTTP/1.1",
        b"Content-Length: 1\r\n",
        b"Host: b\r\n",
        b"Expect: x\r\n",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: Keep-Alive\r\n", b"\xc2\xb2", b"0", b"9"),
)


def settings(**changes: Any) -> Any:
    """As deploy/gunicorn/gateway.py has them, as far as requests are concerned."""
    made = Config()
    ours = {"http_parser": "python", "forwarded_allow_ips": "", "keepalive": 5}
    limits = {"limit_request_line": 8190, "limit_request_field_size": 8190, "limit_request_fields": 100}
    for name, value in (ours | limits | changes).items():
        made.set(name, value)
    return made


@pytest.fixture(scope="module")
def cfg() -> Any:
    return settings()


def plain(cfg: Any, data: bytes) -> Any:
    shared = constants(cfg, SERVER) | {"REMOTE_ADDR": CLIENT[0], "REMOTE_PORT": str(CLIENT[1])}
    return plain_request(data, shared, fields_max=cfg.limit_request_fields)


def stock(cfg: Any, data: bytes) -> tuple[dict[str, Any], bytes]:
    """The environ of the stock loop, and what stands behind the request. Raises what gunicorn raises."""
    unreader = IterUnreader([data])
    request = Request(cfg, unreader, CLIENT)
    assert head_problem(request) is None
    _, environ = create(request, None, CLIENT, SERVER, cfg)
    environ["wsgi.multithread"] = True
    environ["HTTP_CONTENT_TYPE"] = environ.pop("CONTENT_TYPE", "")
    environ["body"] = request.body.read()
    return environ, unreader.take_buffered()


def agrees(cfg: Any, data: bytes) -> bool:
    """Was it taken? Fails where gunicorn would have made something else of it."""
    taken = plain(cfg, data)
    if taken is None:
        return False
    end = taken.head_bytes + taken.body_bytes
    environ, rest = stock(cfg, data)
    ours = {name: value for name, value in taken.environ.items() if name not in NOT_COMPARED}
    ours["body"] = data[taken.head_bytes : end]
    assert ours == {name: value for name, value in environ.items() if name not in NOT_COMPARED}
    assert rest == data[end:]
    return True


@pytest.mark.parametrize("data", PLAIN)
def test_a_plain_request_is_taken_to_the_meaning_that_gunicorn_gives_it(cfg: Any, data: bytes) -> None:
    assert is_suited(cfg)
    assert agrees(cfg, data)


@pytest.mark.parametrize("data", [*OTHER, *(sent for name, sent in REFUSED.items() if name != "bad chunk size")])
def test_what_is_not_plain_is_left_to_the_stock_loop(cfg: Any, data: bytes) -> None:
    assert plain(cfg, data) is None


def changed(dice: random.Random) -> bytes:
    """A plain request with one to three faults."""
    data = bytearray(dice.choice(PLAIN))
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(data))
        match dice.randrange(4):
            case 0:
                data[at : at + 1] = dice.choice(PIECES)
            case 1:
                data[at:at] = dice.choice(PIECES)
            case 2:
                del data[at : at + dice.randint(1, 4)]
            case _:
                data[at] = dice.randrange(256)
    return bytes(data)


def test_no_fault_is_taken_for_something_else_than_gunicorn_takes_it_for(cfg: Any) -> None:
    dice = random.Random(11)
    taken = sum(agrees(cfg, changed(dice)) for _ in range(CHANGES))
    assert CHANGES / 20 < taken < CHANGES  # faults inside of values and bodies are none


@pytest.mark.parametrize(
    "change",
    [{"accesslog": "-"}, {"forwarded_allow_ips": "*"}, {"keepalive": 0}, {"http_parser": "fast"}, {"limit_request_line": 4000}],
)
def test_where_gunicorn_is_set_up_otherwise_the_stock_loop_serves_all(change: dict[str, Any]) -> None:
    assert not is_suited(settings(**change))


def test_a_body_is_read_as_far_as_it_is_there() -> None:
    body = SizedInput(None, b"abcdef", 6)
    assert (body.read(2), body.unread_bytes, body.whole(), body.read(9), body.read(9)) == (b"ab", 4, b"cdef", b"", b"")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[processes.Gateway]]:
    """The fast loop and the stock one."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp
        yield [
            stack.enter_context(processes.gateway(folder("both"), SEKISHO_FAST_HTTP=is_fast)) for is_fast in ("true", "false")
        ]


def answer(gateway: processes.Gateway, sent: bytes) -> bytes:
    """All that is said to it, without what differs from one second, or one call, to the next."""
    received = b""
    with gateway.connect() as client:
        client.settimeout(20)
        try:
            client.sendall(sent)
            client.shutdown(1)
            while data := client.recv(65536):
                received += data
        except OSError:
            received += b"[cut]"
    return re.sub(rb"(?i)(\r\n(?:date|x-request-id)): [^\r]*", rb"\1", received)


def test_both_loops_answer_alike(both: list[processes.Gateway], subtests: pytest.Subtests) -> None:
    dice = random.Random(12)
    pairs = [one + two for one in PLAIN for two in OTHER]
    for sent in (*PLAIN, *OTHER, *REFUSED.values(), *pairs, *(changed(dice) for _ in range(150))):
        with subtests.test(repr(sent[:80])):
            fast, stock_one = (answer(gateway, sent) for gateway in both)
            assert fast == stock_one
