"""A headless Chromium, driven over its debugging pipe (one JSON message a NUL): no driver package is needed.

Protocol: https://chromedevtools.github.io/devtools-protocol/ (Target, Page, Runtime, Emulation, Network, Log).
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ANSWER_S = 60.0
FLAGS = [
    "--headless",
    "--no-sandbox",  # the tests may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-pipe",  # reads from descriptor 3, writes to 4
]


class Browser:
    """One page of one browser. Ends with close(); every wait has an upper bound and fails loudly."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM
        theirs_in, self._out = _pipe()
        self._in, theirs_out = _pipe()
        self._pid = os.posix_spawn(
            CHROMIUM,
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs_in, 3),
                (os.POSIX_SPAWN_DUP2, theirs_out, 4),
                (os.POSIX_SPAWN_OPEN, 2, str(profile / "chromium.log"), os.O_CREAT | os.O_WRONLY, 0o600),
            ],
            setsid=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer = b""
        self._sent = 0
        self._session: str | None = None
        self.complaints: list[str] = []  # what the console and the content security policy said
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer; events that come in between are looked through."""
        self._sent += 1
        message: dict[str, Any] = {"id": self._sent, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._await(lambda m: m.get("id") == self._sent, method)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, url: str, *, width: int, height: int = 900) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.complaints.clear()
        self.send("Page.navigate", url=url)
        self.await_load()

    def await_load(self) -> None:
        self._await(lambda m: m.get("method") == "Page.loadEventFired", "load")

    def prefer(self, scheme: str) -> None:
        """What the system asks for: light or dark."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def evaluate(self, script: str) -> Any:
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def await_true(self, script: str) -> None:
        deadline = time.monotonic() + ANSWER_S
        while not self.evaluate(script):
            assert time.monotonic() < deadline, f"never true: {script}"

    def set_cookie(self, url: str, name: str, value: str) -> None:
        self.send("Network.setCookie", url=url, name=name, value=value)

    def screenshot(self, path: Path) -> None:
        """The whole page, not only what fits the window."""
        picture = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def _await(self, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_S
        while True:
            while b"\0" not in self._buffer:
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"Chromium gave no answer to {what}"
                if select.select([self._in], [], [], left_s)[0]:
                    piece = os.read(self._in, 1 << 20)
                    assert piece, f"Chromium ended during {what}"
                    self._buffer += piece
            text, _, self._buffer = self._buffer.partition(b"\0")
            message = json.loads(text)
            self._note(message)
            if wanted(message):
                return dict(message)

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Log.entryAdded":
            entry = message["params"]["entry"]
            self.complaints.append(f"{entry['text']} {entry.get('url', '')}")
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(message["params"]["exceptionDetails"]))


def _pipe() -> tuple[int, int]:
    """Ends for reading and for writing, above 10: neither may be 3 or 4 itself while they are put there in the child."""
    ends = os.pipe()
    read, write = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return read, write
