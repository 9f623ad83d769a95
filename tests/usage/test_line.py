"""The gateway's one connection to Redis: replies find who asked, and what breaks it is told to all, and mended."""

import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import pytest
import redis
from redis.exceptions import NoScriptError, ResponseError

from portal import embedded
from usage.line import Line
from usage.scripts import Prepared, Run, Script
from usage.store import TIMEOUT_S, RedisError, connect

ECHO = "return ARGV[1]"
SLOW = "local i = 0 while i < 3e7 do i = i + 1 end return ARGV[1]"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[list[embedded.Store]]:
    """Of the test's own; what is appended is stopped too."""
    stores = [embedded.start_valkey(tmp_path, durable=False)]
    yield stores
    for store in stores:
        os.kill(store.process.pid, signal.SIGCONT) if store.process.poll() is None else None
        store.stop()


@pytest.fixture
def line(server: list[embedded.Store]) -> Line:
    return Line(connect(server[0].url), timeout_s=20)  # a slow machine is no frozen server


def evaluate(line: Line, script: str, *args: str) -> Any:
    return line.ask(Run((), args).packed("EVAL", script))


def first_reply(line: Line, text: str) -> bytes:
    """As soon as the server answers again."""
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        with suppress(RedisError):
            return bytes(evaluate(line, ECHO, text))
        gevent.sleep(0.05)
    pytest.fail("the server is never back")


def test_each_of_many_at_once_gets_its_own_reply(line: Line) -> None:
    dice = random.Random(5)
    texts = [str(number).encode() * dice.choice([1, 100, 20_000]) for number in range(300)]
    asked = [gevent.spawn(evaluate, line, ECHO, text) for text in texts]
    gevent.joinall(asked, raise_error=True)
    assert [one.value for one in asked] == texts


def test_commands_of_one_turn_share_one_connection(line: Line, server: list[embedded.Store]) -> None:
    gevent.joinall([gevent.spawn(evaluate, line, ECHO, "x") for _ in range(50)], raise_error=True)
    with redis.Redis.from_url(server[0].url) as client:
        assert len(client.client_list()) == 2  # and this one's


class Heard:
    """What came of a command that nobody waits for."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.errors: list[Exception] = []

    def switch(self, reply: Any) -> None:
        self.replies.append(reply)

    def throw(self, error: Exception) -> None:
        self.errors.append(error)


def test_a_command_is_with_the_server_before_the_loop_has_turned(line: Line, server: list[embedded.Store]) -> None:
    evaluate(line, ECHO, "connected")
    heard = Heard()
    assert line.tell(Run((), ()).packed("EVAL", "return redis.call('SET', 'told', 1)"), heard)
    with redis.Redis.from_url(server[0].url) as client:
        assert client.get("told") == b"1"  # the test's own socket, for which gevent's loop need not turn
    assert heard.replies == []
    assert evaluate(line, ECHO, "after it") == b"after it"
    assert heard.replies == [b"OK"]


def test_of_what_is_told_many_at_once_each_hears_its_own_reply(line: Line) -> None:
    evaluate(line, ECHO, "connected")
    ears = [Heard() for _ in range(300)]
    texts = [str(number).encode() * (20_000 if number % 7 == 0 else 1) for number in range(300)]
    for ear, text in zip(ears, texts, strict=True):
        assert line.tell(Run((), (text,)).packed("EVAL", ECHO), ear)
    assert evaluate(line, ECHO, "the last") == b"the last"
    assert [ear.replies for ear in ears] == [[text] for text in texts]


def test_nobody_is_told_anything_without_a_connection(server: list[embedded.Store]) -> None:
    line, heard = Line(connect(server[0].url)), Heard()
    assert not line.tell(Run((), ("x",)).packed("EVAL", ECHO), heard)
    assert first_reply(line, "connected") == b"connected"
    server[0].process.kill()
    server[0].process.wait()
    line.tell(Run((), ("x",)).packed("EVAL", ECHO), heard)  # the end of the connection need not be known yet
    gevent.sleep(0.1)
    assert heard.replies == []
    assert not line.tell(Run((), ("x",)).packed("EVAL", ECHO), heard)


def test_errors_of_the_server_are_redis_pys_and_end_nothing(line: Line) -> None:
    with pytest.raises(NoScriptError):
        line.ask(Run((), ()).packed("EVALSHA", "0" * 40))
    with pytest.raises(ResponseError, match="boom"):
        evaluate(line, "return redis.error_reply('boom')")
    assert evaluate(line, ECHO, "still there") == b"still there"


@pytest.mark.parametrize("own", [1, 12], ids=["one", "twelve"])
def test_a_prepared_script_gets_its_parts_in_their_order_with_and_without_a_line(
    line: Line, server: list[embedded.Store], own: int
) -> None:
    text = "return {KEYS, ARGV}"
    script = Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
    prepared = Prepared(script, ("k1", "k2"), first=("first", 2), own=own, last=("last", 3))
    of_this_run = tuple([b"three\r\nlines\r\n", "\u3042", 4] * 4)[:own]
    told = [b"three\r\nlines\r\n", "\u3042".encode(), b"4"] * 4
    with connect(server[0].url) as client:
        for _ in range(2):  # the server does not know it, and then does
            for over in (line, None):
                assert prepared.run(client, over, of_this_run) == [
                    [b"k1", b"k2"],
                    [b"first", b"2", *told[:own], b"last", b"3"],
                ]
        client.script_flush()
        assert prepared.run(client, None, of_this_run)
    assert evaluate(line, ECHO, "nothing is left over") == b"nothing is left over"


def test_it_asks_the_database_of_its_url(server: list[embedded.Store]) -> None:
    url = server[0].url.replace("db=0", "db=3")
    evaluate(Line(connect(url)), "redis.call('SET', 'here', 1)")
    assert redis.Redis.from_url(url).get("here") == b"1"
    assert redis.Redis.from_url(server[0].url).get("here") is None


def test_a_frozen_server_is_told_to_all_in_time_and_forgotten_when_it_thaws(server: list[embedded.Store]) -> None:
    line = Line(connect(server[0].url))
    assert evaluate(line, ECHO, "before") == b"before"
    os.kill(server[0].process.pid, signal.SIGSTOP)
    began_s = time.monotonic()
    asked = [gevent.spawn(evaluate, line, ECHO, str(number)) for number in range(50)]
    gevent.joinall(asked)
    assert time.monotonic() - began_s < 40 * TIMEOUT_S  # an upper guard: two time-outs, not fifty
    assert all(isinstance(one.exception, RedisError) for one in asked)
    os.kill(server[0].process.pid, signal.SIGCONT)
    assert first_reply(line, "after") == b"after"


def test_a_late_reply_is_nobodys(server: list[embedded.Store]) -> None:
    hasty = Line(connect(server[0].url), timeout_s=0.02)
    with pytest.raises(RedisError):
        evaluate(hasty, SLOW, "late")
    assert first_reply(hasty, "mine") == b"mine"


def test_it_connects_again_to_a_server_that_was_restarted(line: Line, server: list[embedded.Store], tmp_path: Path) -> None:
    assert evaluate(line, ECHO, "before") == b"before"
    server[0].stop()
    with pytest.raises(RedisError):
        evaluate(line, ECHO, "nobody there")
    server.append(embedded.start_valkey(tmp_path, durable=False))
    assert evaluate(line, ECHO, "after") == b"after"


def test_one_who_no_longer_waits_shifts_no_replies(line: Line) -> None:
    gone = gevent.spawn(evaluate, line, ECHO, "gone")
    stays = gevent.spawn(evaluate, line, ECHO, "stays")
    gevent.sleep(0)
    gone.kill()
    assert stays.get() == b"stays"
    assert evaluate(line, ECHO, "next") == b"next"


def test_a_prepared_script_sends_nothing_with_another_number_of_arguments(line: Line, server: list[embedded.Store]) -> None:
    prepared = Prepared(Script(ECHO, ""), (), own=1)
    with connect(server[0].url) as client, pytest.raises(ValueError, match="2 arguments"):
        prepared.run(client, line, ("one", "two"))
    assert evaluate(line, ECHO, "next") == b"next"
