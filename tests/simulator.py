"""Start the vLLM stand-in as a process of its own: `with simulator(first_token_ms=50) as sim: sim.url ...`."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

PROJECT = Path(__file__).resolve().parent.parent
PATIENCE_S = 20.0


class Simulator:
    """A running stand-in. url: without /v1."""

    def __init__(self, options: Sequence[str], *, waits: bool = True) -> None:
        command = [sys.executable, "-m", "gateway.simulator", "--port", "0", *options]
        self.process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = re.search(r"http://\S+", self.process.stdout.readline())
        if found is None:
            self.process.kill()
            raise RuntimeError(f"the simulator did not start with {options}")
        self.url = found[0]
        self.address = (str(urlsplit(self.url).hostname), int(urlsplit(self.url).port or 0))
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy
        self._session.headers["connection"] = "close"  # an idle connection would be closed under it
        if waits:
            wait_until(self.is_ready)

    def is_ready(self) -> bool:
        try:
            self._call("GET", "/sim/knobs")
        except requests.ConnectionError:
            return False
        return True

    def knobs(self, **changes: object) -> dict[str, Any]:
        """Turn knobs from now on; returns how all of them stand."""
        return self._call("POST", "/sim/knobs", changes)

    def reset(self) -> None:
        """The knobs as at the start, and no request remembered."""
        self._call("DELETE", "/sim/knobs")
        self._call("DELETE", "/sim/requests")

    def requests(self) -> list[dict[str, Any]]:
        """The chat requests so far, oldest first: id, status, prompt_tokens, completion_tokens, finished, headers, body."""
        return self._call("GET", "/sim/requests")

    def metrics(self) -> dict[str, float]:
        """Each sample of /metrics by its name without `vllm:` and labels; rows of the same name are added up."""
        sums: dict[str, float] = {}
        for line in self._session.get(self.url + "/metrics", timeout=PATIENCE_S).text.splitlines():
            if not line.startswith("#"):
                name = line.removeprefix("vllm:").partition("{")[0]
                sums[name] = sums.get(name, 0.0) + float(line.rpartition(" ")[2])
        return sums

    def _call(self, method: str, path: str, body: object = None) -> Any:
        response = self._session.request(method, self.url + path, json=body, timeout=PATIENCE_S)
        response.raise_for_status()
        return response.json()

    def refuse(self) -> None:
        """Connections are refused until accept(); what runs goes on."""
        self.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: not self.is_ready())

    def accept(self) -> None:
        self.process.send_signal(signal.SIGUSR2)
        wait_until(self.is_ready)

    def stop(self) -> int:
        """SIGTERM, and wait; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self._ended()

    def kill(self) -> None:
        """SIGKILL: no goodbye, as when the machine goes."""
        self.process.kill()
        self._ended()

    def _ended(self) -> int:
        code = self.process.wait(PATIENCE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


@contextmanager
def simulator(*options: str, waits: bool = True, **knobs: object) -> Iterator[Simulator]:
    """Run one with command line options and knobs; killed at the end if it still runs.

    waits=False: do not wait until it answers (slow start).
    """
    turned = [f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in knobs.items()]
    started = Simulator([*options, *turned], waits=waits)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.kill()


def wait_until(is_so: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Poll until is_so(); AssertionError when it never is."""
    deadline_s = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < deadline_s, "what was waited for did not come"
        time.sleep(0.005)
