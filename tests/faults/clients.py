"""Clients that call without a pause, each one call after the other, streamed and plain in turn; and what each call came to."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any, Literal

from tests.e2e.conftest import CHAT

PATIENCE_S = 60.0
AFTER_FAILURE_S = 0.1

# whole: as it should be. status: another one than 200. event: an error event after 200, and no [DONE]. mute: an end without
# [DONE] and without an error event, which a client takes for a success. broken: no HTTP answer at all.
Ending = Literal["whole", "status", "event", "mute", "broken"]


@dataclass(frozen=True, slots=True)
class Result:
    """had_begun: some of the answer had reached the client. skew_s: how far `created` is from the client's clock."""

    at_s: float
    seconds: float
    ending: Ending
    status: int
    code: str
    had_begun: bool
    request_id: str
    skew_s: float

    @property
    def is_lost(self) -> bool:
        """It failed although another backend could still have answered it."""
        return self.ending != "whole" and not self.had_begun

    @property
    def seen(self) -> str:
        """In a word, for the matrix."""
        words = {"whole": "200", "status": str(self.status), "event": f"200 then {self.code}"}
        return words.get(self.ending, self.ending)


class Clients:
    """results: of the calls that have ended, in their order."""

    def __init__(self, port: int, secret: str, count: int, *, rare: str = "", streams_alone: bool = False) -> None:
        """rare: words for the message of every tenth call."""
        self.results: list[Result] = []
        self._port = port
        self._headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        self._rare = rare
        self._streams_alone = streams_alone
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call_on_and_on, args=(index,)) for index in range(count)]

    @contextmanager
    def calling(self) -> Iterator["Clients"]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(PATIENCE_S)

    def _call_on_and_on(self, index: int) -> None:
        number = index
        while not self._stop.is_set():
            number += 1
            text = self._rare if self._rare and number % 10 == 0 else f"Hello {number}"
            result = self._call(text, stream=self._streams_alone or number % 2 == 0)
            self.results.append(result)
            if result.ending != "whole":
                self._stop.wait(AFTER_FAILURE_S)

    def _call(self, text: str, *, stream: bool) -> Result:
        body = {"model": "general", "stream": stream, "messages": [{"role": "user", "content": text}]}
        began_s = time.monotonic()
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        status, request_id, data = 0, "", b""
        try:
            connection.request("POST", CHAT, json.dumps(body), self._headers)
            response = connection.getresponse()
            status, request_id = response.status, response.headers["x-request-id"]
            data = response.read()
        except (OSError, HTTPException):
            return Result(began_s, time.monotonic() - began_s, "broken", status, "", bool(data), request_id, 0.0)
        finally:
            connection.close()
        read = _read_stream if stream and status == 200 else _read_whole
        ending, code, had_begun, created_s = read(status, data)
        skew_s = created_s - time.time() if created_s else 0.0
        return Result(began_s, time.monotonic() - began_s, ending, status, code, had_begun, request_id, skew_s)


def _read_whole(status: int, data: bytes) -> tuple[Ending, str, bool, float]:
    answer = json.loads(data)
    if status != 200:
        return "status", answer["error"]["code"], False, 0.0
    return "whole", "", True, answer["created"]


def _read_stream(_status: int, data: bytes) -> tuple[Ending, str, bool, float]:
    events = [event.removeprefix(b"data: ") for event in data.split(b"\n\n") if event.startswith(b"data: ")]
    if events and events[-1] == b"[DONE]":
        return "whole", "", True, json.loads(events[0])["created"]
    last: dict[str, Any] = json.loads(events[-1]) if events else {}
    if "error" in last:
        return "event", last["error"]["code"], len(events) > 1, 0.0
    return "mute", "", bool(events), 0.0


def until(check: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> float:
    """Poll `check` until it holds; how long that took, seconds."""
    began_s = time.monotonic()
    while not check():
        assert time.monotonic() - began_s < patience_s, what
        time.sleep(0.02)
    return time.monotonic() - began_s
