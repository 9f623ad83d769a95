"""`manage.py backend`: what is listed, the switch, and the wait for the last call."""

import json
import threading
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command
from django.db import connection

from accounts.models import AuditEvent
from gateway.config import publish
from gateway.models import Backend, Deployment, PoolMember
from gateway.routing import in_flight
from tests.processes import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def backends(valkey: redis.Redis) -> dict[str, Backend]:
    rows = {name: Backend.objects.create(name=name, url=f"http://{name}:8000") for name in ("gpu-1", "gpu-2")}
    deployment = Deployment.objects.create(name="tiny", served_model="tiny")
    for row in rows.values():
        PoolMember.objects.create(deployment=deployment, backend=row)
    PoolMember.objects.create(deployment=Deployment.objects.create(name="large", served_model="l"), backend=rows["gpu-1"])
    publish.publish_all()
    return rows


def run(*words: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("backend", *words, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


class Worker:
    """Tells of its calls as a gateway's worker does, again and again until stopped."""

    def __init__(self, valkey: redis.Redis, calls: dict[str, int]) -> None:
        self.calls = calls
        self._valkey = valkey
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.tell()
        self._thread.start()

    def tell(self) -> None:
        seconds, _ = self._valkey.time()
        self._valkey.hset(in_flight.KEY, "w1", in_flight.encode(self.calls, at_s=seconds))

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(0.1):
            self.tell()


@pytest.fixture
def worker(valkey: redis.Redis) -> Iterator[Worker]:
    worker = Worker(valkey, {"gpu-1": 3})
    yield worker
    worker.stop()


class Drain(threading.Thread):
    """`backend drain gpu-1 --wait` beside the test. outcome: None while it waits."""

    def __init__(self) -> None:
        super().__init__()
        self.err = StringIO()
        self.outcome: str | None = None
        self.start()

    def run(self) -> None:
        try:
            call_command("backend", "drain", "gpu-1", "--wait", stdout=StringIO(), stderr=self.err)
            self.outcome = "drained"
        except CommandError as error:
            self.outcome = str(error)
        finally:
            connection.close()

    def says(self, text: str) -> Callable[[], bool]:
        return lambda: text in self.err.getvalue()


def test_list_shows_states_and_live_calls(worker: Worker) -> None:
    run("drain", "gpu-1")
    assert run("list")[0].splitlines() == [
        "NAME   URL                STATE     CALLS  DEPLOYMENTS",
        "gpu-1  http://gpu-1:8000  draining  3      large,tiny",
        "gpu-2  http://gpu-2:8000  serving   0      tiny",
    ]
    facts = json.loads(run("list", "--json")[0])
    assert facts[0] == {
        "name": "gpu-1",
        "url": "http://gpu-1:8000",
        "state": "draining",
        "calls": 3,
        "deployments": ["large", "tiny"],
    }


def test_list_without_redis_knows_no_calls(settings: Any) -> None:
    settings.REDIS_URL = "unix:///nowhere/valkey.sock"
    assert [row["calls"] for row in json.loads(run("list", "--json")[0])] == [None, None]
    assert run("list")[0].splitlines()[2].split()[3] == "-"


def test_drain_and_resume_are_audited() -> None:
    out, err = run("drain", "gpu-1")
    assert out == ""
    assert "gpu-1 drains: it gets no new calls." in err
    assert "gpu-1 was draining already." in run("drain", "gpu-1")[1]
    assert Backend.objects.get(name="gpu-1").is_draining
    assert "gpu-1 gets calls again." in run("resume", "gpu-1")[1]
    assert "gpu-1 was not draining." in run("resume", "gpu-1")[1]
    events = list(AuditEvent.objects.order_by("sequence").values_list("verb", "target", "actor_label"))
    assert events == [
        ("backend.drained", "backend gpu-1", "command: backend drain"),
        ("backend.resumed", "backend gpu-1", "command: backend resume"),
    ]


def test_drain_of_the_last_backend_is_warned_of() -> None:
    assert "large has no other backend" in run("drain", "gpu-1")[1]
    assert "tiny has no other backend" in run("drain", "gpu-2")[1]


def test_unknown_backend_is_told_with_those_there_are() -> None:
    for verb in ("drain", "resume"):
        with pytest.raises(CommandError, match=r"No backend “gpu-9”. There are: gpu-1, gpu-2."):
            run(verb, "gpu-9")
    assert not AuditEvent.objects.exists()


def test_wait_ends_with_the_last_call(worker: Worker) -> None:
    drain = Drain()
    try:
        wait_until(drain.says("Calls in flight: 3"), "the count was not told")
        worker.calls = {"gpu-1": 1, "gpu-2": 9}
        wait_until(drain.says("Calls in flight: 1"), "the new count was not told")
        assert drain.outcome is None
    finally:
        worker.calls = {"gpu-2": 9}
        drain.join(60)
    assert drain.outcome == "drained"
    assert drain.err.getvalue().splitlines()[-2:] == ["Calls in flight: 0", "gpu-1 is drained."]


def test_wait_ends_without_any_worker() -> None:
    assert "gpu-1 is drained." in run("drain", "gpu-1", "--wait")[1]


def test_wait_ends_when_somebody_resumes(worker: Worker) -> None:
    drain = Drain()
    wait_until(drain.says("Calls in flight: 3"), "the count was not told")
    run("resume", "gpu-1")
    drain.join(60)
    assert drain.outcome == "gpu-1 drains no longer: somebody has resumed it."


def test_wait_waits_for_a_redis_that_is_out(settings: Any) -> None:
    settings.REDIS_URL = "unix:///nowhere/valkey.sock"
    drain = Drain()
    wait_until(drain.says("Redis does not answer: waiting for it."), "nothing was said of Redis")
    run("resume", "gpu-1")
    drain.join(60)
    assert drain.outcome == "gpu-1 drains no longer: somebody has resumed it."
