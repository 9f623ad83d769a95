"""Where faults befall: three simulated vLLMs behind one real gateway. The first one is the one that falls sick."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import requests

from gateway.models import Backend, Deployment, ModelAlias, PoolMember
from tests.e2e.conftest import Stand
from tests.faults.clients import Clients, Result, until
from tests.faults.matrix import Row, row_of
from tests.simulator import Simulator

USUAL: Final[dict[str, object]] = {"first_token_ms": 40, "tokens_per_s": 100, "tokens": 10}
FIRST_TOKEN_MAX_S: Final = 1.0
STALL_MAX_S: Final = 1.5
CLIENTS: Final = 8
WARM_CALLS: Final = 30
LOOK_S: Final = 0.05
STEADY: Final = 5  # looks in a row, which any of the workers may have answered, that make a state one of all workers
OUT: Final = frozenset({0, 1})  # sekisho_backend_state: ejected, trial


class Machine:
    """A simulated vLLM at one address, which can go and come back."""

    def __init__(self, *options: str) -> None:
        self.sim = Simulator(options)
        self.port = self.sim.address[1]

    def revive(self, *options: str) -> None:
        """Start it anew if it has gone, or with other options."""
        if self.sim.process.poll() is None:
            self.sim.kill()
        self.sim = Simulator(["--port", str(self.port), *options])

    def make_well(self) -> None:
        if self.sim.process.poll() is not None:
            self.revive()
        self.sim.reset()
        self.sim.knobs(**USUAL)

    def ask(self) -> None:
        """A call that comes from elsewhere."""
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
        requests.post(f"{self.sim.url}/v1/chat/completions", json=body, timeout=20).raise_for_status()

    def end(self) -> None:
        if self.sim.process.poll() is None:
            self.sim.kill()


@dataclass(frozen=True, slots=True)
class Fault:
    """befalls, is_mended: what is done to the field. usual: knobs of all backends. rare: the message of every tenth call.

    is_seen: the backend is to be ejected, and to come back; None: that may be or not. breaks: answers that had begun may end
    in an error event.
    recorded: the error codes that usage events may bear. streams_alone: it befalls streams, and plain answers would hide it.
    """

    name: str
    befalls: Callable[["Field"], object]
    is_mended: Callable[["Field"], object] = field(default=lambda here: here.sick.make_well())
    usual: dict[str, object] = field(default_factory=dict)
    rare: str = ""
    is_seen: bool | None = True
    breaks: bool = False
    streams_alone: bool = False
    recorded: frozenset[str] = frozenset()
    lasts_s: float = 2.0
    long_s: float = 6.0


class Watch:
    """The sick backend's state as the gateway's /metrics tell it, again and again."""

    def __init__(self, url: str, backend: str) -> None:
        self._url = f"{url}/metrics"
        self._sample = f'sekisho_backend_state{{backend="{backend}"}} '
        self._looks: list[tuple[float, float | None]] = []
        self._stop = threading.Event()

    def run(self) -> None:
        while not self._stop.wait(LOOK_S):
            self._looks.append((time.monotonic(), self._state()))

    def _state(self) -> float | None:
        text = requests.get(self._url, timeout=20).text
        return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(self._sample)), None)

    def first(self, *, out: bool, since_s: float) -> float | None:
        """After how many seconds from since_s on all workers had it out, or in; None: they never had."""
        looks = [look for look in self._looks if look[0] >= since_s]
        for index in range(len(looks) - STEADY + 1):
            if all((state in OUT) is out and state is not None for _, state in looks[index : index + STEADY]):
                return looks[index][0] - since_s
        return None

    @contextmanager
    def watching(self) -> Iterator["Watch"]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()


class Field:
    def __init__(self, stand: Stand, machines: Sequence[Machine], *, is_long: bool) -> None:
        self.stand = stand
        self.machines = machines
        self.is_long = is_long
        self.backend = ""

    @property
    def sick(self) -> Machine:
        return self.machines[0]

    def prepare(self, slug: str, knobs: dict[str, object], *, urls: Sequence[str] = ()) -> None:
        """All well, under names that no row before has used: the gateway remembers what a name did."""
        names = [f"{slug}-{letter}" for letter in "abc"]
        deployment = Deployment.objects.create(
            name=slug, served_model="tiny", first_token_max_s=FIRST_TOKEN_MAX_S, stall_max_s=STALL_MAX_S
        )
        for name, machine, url in zip(names, self.machines, urls or [m.sim.url for m in self.machines], strict=True):
            machine.make_well()
            machine.sim.knobs(**knobs)
            backend = Backend.objects.create(name=name, url=url)
            PoolMember.objects.create(deployment=deployment, backend=backend)
        alias = ModelAlias.objects.get(name="general")
        alias.deployment = deployment
        alias.save()
        self.backend = names[0]
        watch = Watch(self.stand.gateway.url, self.backend)
        until(lambda: watch._state() == 3, "the backends were not found well", 180)

    def clients(self, *, rare: str = "", streams_alone: bool = False) -> Clients:
        count = CLIENTS * (2 if self.is_long else 1)
        return Clients(self.stand.gateway.port, self.stand.secret, count, rare=rare, streams_alone=streams_alone)

    def suffer(self, fault: Fault, slug: str) -> tuple[Row, list[Result]]:
        """One fault, from well to well again, and what came of the calls from its beginning on."""
        self.prepare(slug, dict(fault.usual))
        watch = Watch(self.stand.gateway.url, self.backend)
        with watch.watching(), self.clients(rare=fault.rare, streams_alone=fault.streams_alone).calling() as clients:
            until(lambda: len(clients.results) >= WARM_CALLS, "the clients get no answers")
            began_s = time.monotonic()
            fault.befalls(self)
            time.sleep(fault.long_s if self.is_long else fault.lasts_s)
            if fault.is_seen:
                until(lambda: watch.first(out=True, since_s=began_s) is not None, "it was never ejected", 30)
            mended_s = time.monotonic()
            fault.is_mended(self)
            if fault.is_seen:
                until(lambda: watch.first(out=False, since_s=mended_s) is not None, "it never came back", 90)
            served = len(self.sick.sim.requests())
            until(lambda: len(self.sick.sim.requests()) > served, "it gets no calls any more")
        results = [result for result in clients.results if result.at_s + result.seconds >= began_s]
        ejected_s = watch.first(out=True, since_s=began_s)
        recovered_s = watch.first(out=False, since_s=mended_s) if ejected_s is not None else None
        endings = self.recorded(results)
        return row_of(fault.name, results, endings, ejected_s=ejected_s, recovered_s=recovered_s), results

    def recorded(self, results: Iterable[Result]) -> Counter[str]:
        """The error codes in the usage events of these calls."""
        wanted = {result.request_id for result in results if result.request_id}
        self.stand.until(lambda: wanted <= set(self._codes()), "usage events are missing")
        codes = self._codes()
        return Counter(str(codes[request_id]) for request_id in wanted if codes[request_id])

    def _codes(self) -> dict[str, Any]:
        return {event.request_id: event.error_code for event in self.stand.events_of_acme()}
