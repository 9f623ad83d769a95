"""The faults that two real vLLM servers can be brought to, printed: `.venv/bin/python -m tests.faults.real COMMAND [WORD ...]`.

COMMAND, split as a shell does, runs one `vllm serve` in the foreground on the port in $PORT, for a model that it serves as
`tiny`; it is run twice. Four clients call without a pause, streamed and plain in turn. A minute or two for each row.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import requests

from tests.bench.database import database
from tests.faults.matrix import Row, row_of, table

if TYPE_CHECKING:  # Django comes first
    from tests import processes

CLIENTS: Final = 4
START_S: Final = 300.0
TOKENS: Final = 40
LASTS_S: Final = 6.0


class Server:
    """A vLLM on a port of its own, which can go and come back."""

    def __init__(self, command: str, log: Path) -> None:
        from tests.processes import free_port

        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = command
        self._log = log
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                shlex.split(self._command),
                env=os.environ | {"PORT": str(self.port)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        with suppress(requests.RequestException):
            return requests.get(f"{self.url}/health", timeout=2).ok
        return False

    def await_ready(self) -> None:
        from tests.processes import wait_until

        wait_until(self.is_ready, lambda: f"vLLM did not start: {self._log.read_text()[-2000:]}", self.process, START_S)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """As its operator does: it aborts what it generates, and ends."""
        self.process.send_signal(signal.SIGTERM)

    def engines(self, number: signal.Signals) -> None:
        """A signal for its engine processes, while its API server runs on."""
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                is_ours = os.getsid(int(folder.name)) == self.process.pid
                if is_ours and "EngineCore" in (folder / "cmdline").read_text():
                    os.kill(int(folder.name), number)

    def revive(self) -> None:
        self.kill()
        self.start()
        self.await_ready()

    def served(self) -> float:
        """Answers that it has ended, however."""
        lines = requests.get(f"{self.url}/metrics", timeout=20).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:request_success_total{"))


@dataclass(frozen=True, slots=True)
class Fault:
    """befalls, is_mended: what is done to the first of the two."""

    name: str
    befalls: Callable[[Server], object]
    is_mended: Callable[[Server], object] = Server.revive


FAULTS: Final = (
    Fault("vLLM: killed in the middle of answers", Server.kill),
    Fault("vLLM: stopped by SIGTERM in the middle of answers", Server.stop),
    Fault(
        "vLLM: its engine hangs, /health at 200",
        lambda server: server.engines(signal.SIGSTOP),
        lambda server: server.engines(signal.SIGCONT),
    ),
    Fault("vLLM: its engine is killed", lambda server: server.engines(signal.SIGKILL)),
)


@dataclass(frozen=True, slots=True)
class Scene:
    gateway: "processes.Gateway"
    secret: str
    servers: list[Server]
    tenant: Any
    store: Any

    def suffer(self, fault: Fault, slug: str) -> Row:
        from tests.faults.clients import Clients, until
        from tests.faults.field import Watch

        sick = self.servers[0]
        prepare(self, slug)
        watch = Watch(self.gateway.url, f"{slug}-0")
        until(lambda: watch._state() == 3, "the backends were not found well")
        with watch.watching(), Clients(self.gateway.port, self.secret, CLIENTS).calling() as clients:
            until(lambda: len(clients.results) >= 30 and sick.served() > 0, "the clients get no answers")
            began_s = time.monotonic()
            fault.befalls(sick)
            time.sleep(LASTS_S)
            until(lambda: watch.first(out=True, since_s=began_s) is not None, "it was never ejected")
            fault.is_mended(sick)
            mended_s = time.monotonic()
            until(lambda: watch.first(out=False, since_s=mended_s) is not None, "it never came back", 90)
            served = sick.served()
            until(lambda: sick.served() > served, "it gets no calls any more")
        results = [result for result in clients.results if result.at_s + result.seconds >= began_s]
        ejected_s, recovered_s = watch.first(out=True, since_s=began_s), watch.first(out=False, since_s=mended_s)
        return row_of(fault.name, results, self.codes(results), ejected_s=ejected_s, recovered_s=recovered_s)

    def codes(self, results: list[Any]) -> Counter[str]:
        """The error codes in the usage events of these calls."""
        import orjson

        from usage.partitions import journal_key, partition

        entries = self.store.xrange(journal_key(partition(str(self.tenant.id))))
        events = [orjson.loads(fields[b"event"]) for _id, fields in entries]
        wanted = {result.request_id for result in results}
        return Counter(event["error_code"] for event in events if event["request_id"] in wanted and event.get("error_code"))


def prepare(here: Scene, slug: str) -> None:
    """A deployment of both, under names that no row before has used."""
    from gateway.models import Backend, Deployment, ModelAlias, PoolMember
    from tests.e2e.conftest import publish

    deployment = Deployment.objects.create(name=slug, served_model="tiny", first_token_max_s=5.0, stall_max_s=5.0)
    for at, server in enumerate(here.servers):
        PoolMember.objects.create(deployment=deployment, backend=Backend.objects.create(name=f"{slug}-{at}", url=server.url))
    ModelAlias.objects.update_or_create(
        tenant=here.tenant, name="general", defaults={"deployment": deployment, "defaults": {"max_tokens": TOKENS}}
    )
    publish()


@contextmanager
def scene(command: str) -> Iterator[Scene]:
    with database(), ExitStack() as stack:
        import redis
        from django.conf import settings
        from django.db import connection

        from accounts import issuing
        from accounts.models import Tenant
        from portal import embedded
        from tests import processes
        from tests.e2e.conftest import BY

        home = Path(os.environ["SEKISHO_HOME"])
        stack.callback(connection.close)
        stack.callback(embedded.start_valkey(home, durable=False).stop)
        tenant = Tenant.objects.create(slug="acme", name="Acme")
        _, secret = issuing.issue(tenant, issuing.Terms(name="ci"), **BY)
        servers = []
        for at in range(2):
            servers.append(Server(command, home / f"vllm-{at}.log"))
            stack.callback(servers[-1].kill)
        for server in servers:
            server.await_ready()
        gateway = stack.enter_context(processes.gateway(home / "gateway", workers=2))
        yield Scene(gateway, secret, servers, tenant, redis.Redis.from_url(settings.REDIS_URL))


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started ends
    command, *words = sys.argv[1:]
    chosen = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    with scene(command) as here:
        for number, fault in enumerate(chosen):
            sys.stdout.write(table([here.suffer(fault, f"real-{number}")]) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
