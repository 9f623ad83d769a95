"""Several workers, real Redis, simulated vLLM: who probes, what all see, how a backend goes and comes back."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from gateway.routing import health
from gateway.routing.board import STRIKES, Failure
from gateway.routing.exchange import EJECTIONS, VERDICTS, prober_key, trial_key
from gateway.routing.in_flight import KEY, read
from portal import embedded
from tests.gateway.config.conftest import eventually
from tests.gateway.routing.conftest import Start
from tests.gateway.routing.workers import GPU, Worker
from tests.processes import PROJECT
from tests.simulator import Simulator, simulator

DOOMED = "to-be-killed"


def all_say(workers: Sequence[Worker], state: str, name: str = GPU) -> None:
    """Until every worker's board says so."""
    eventually(lambda: all(worker.view(name).state == state for worker in workers))


def prober(store: redis.Redis, name: str = GPU) -> str | None:
    owner: Any = store.get(prober_key(name))
    return owner.decode() if owner else None


def fail(worker: Worker, failure: Failure, *, times: int = 1) -> None:
    for _ in range(times):
        worker.board.note_start(worker.backend())
        worker.board.note_failure(worker.backend(), failure)
        worker.board.note_end(worker.backend())


def succeed(worker: Worker) -> None:
    worker.board.note_start(worker.backend())
    worker.board.note_success(worker.backend(), first_token_s=None)
    worker.board.note_end(worker.backend())


# Election


def test_one_worker_probes_and_all_see_the_verdict(vllm: Simulator, start: Start, store: redis.Redis) -> None:
    vllm.knobs(max_model_len=4096)
    workers = [start({GPU: vllm.url}) for _ in range(3)]
    all_say(workers, "healthy")
    for worker in workers:
        view = worker.view()
        assert (view.models, view.max_model_len, view.readiness) == (("tiny",), 4096, 1.0)
        assert view.load is not None
    assert prober(store) in {worker.name for worker in workers}
    assert vllm.requests() == [], "never a token spent on a probe"


def test_backends_are_shared_out_among_the_workers(vllm: Simulator, start: Start, store: redis.Redis) -> None:
    urls = {f"gpu-{number}": vllm.url for number in range(4)}
    workers = [start(urls) for _ in range(2)]
    probers: Callable[[], list[str | None]] = lambda: sorted(str(prober(store, name)) for name in urls)  # noqa: E731
    each_twice = sorted([workers[0].name, workers[1].name] * 2)
    eventually(lambda: probers() == each_twice)


def test_worker_that_ends_hands_over_at_once(vllm: Simulator, start: Start, store: redis.Redis) -> None:
    first = start({GPU: vllm.url})
    all_say([first], "healthy")
    second = start({GPU: vllm.url})
    all_say([second], "healthy")
    first.stop()
    assert first.name.encode() not in store.hkeys(KEY)
    eventually(lambda: prober(store) == second.name)
    eventually(lambda: fresh_verdict_at(store) > time.time() - 1)


def fresh_verdict_at(store: redis.Redis) -> float:
    body: Any = store.hget(VERDICTS, GPU)
    return float(orjson.loads(body)["at_s"]) if body else 0.0


@pytest.fixture
def doomed(vllm: Simulator, redis_apart: str, store: redis.Redis) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker in a process of its own, that probes."""
    command = [sys.executable, "-m", "tests.gateway.routing.worker", redis_apart, DOOMED, GPU, vllm.url]
    process = subprocess.Popen(command, cwd=PROJECT)
    yield process
    process.kill()
    process.wait()


def test_worker_that_is_killed_is_followed_within_its_lease(
    doomed: "subprocess.Popen[bytes]", vllm: Simulator, start: Start, store: redis.Redis
) -> None:
    eventually(lambda: prober(store) == DOOMED)
    eventually(lambda: store.hexists(VERDICTS, GPU))
    survivor = start({GPU: vllm.url})
    all_say([survivor], "healthy")
    assert prober(store) == DOOMED
    doomed.kill()
    doomed.wait()
    vllm.knobs(health_status=503)
    all_say([survivor], "ejected")
    assert prober(store) == survivor.name


# Probes eject and readmit


def test_backend_that_is_killed_is_out_for_all(start: Start) -> None:
    with simulator() as doomed_vllm:
        workers = [start({GPU: doomed_vllm.url}) for _ in range(3)]
        all_say(workers, "healthy")
        doomed_vllm.kill()
        all_say(workers, "ejected")
        assert {worker.view().reason for worker in workers} == {"takes no connections"}


def test_backend_that_comes_back_starts_slowly_for_all(vllm: Simulator, start: Start) -> None:
    workers = [start({GPU: vllm.url}) for _ in range(2)]
    vllm.knobs(health_status=503)
    all_say(workers, "ejected")
    vllm.knobs(health_status=200)
    all_say(workers, "healthy")
    ready = [worker.view().readiness for worker in workers]
    assert all(0.1 <= readiness < 1 for readiness in ready)
    assert ready[0] == pytest.approx(ready[1], abs=0.02)
    eventually(lambda: workers[0].view().readiness > max(ready))


def test_wrong_model_is_out_with_a_reason_that_names_both(vllm: Simulator, start: Start) -> None:
    worker = start({GPU: vllm.url})
    vllm.knobs(models_name="other")
    all_say([worker], "ejected")
    assert worker.view().reason == "serves 'other', not 'tiny'"
    vllm.knobs(models_name="")
    all_say([worker], "healthy")


def test_frozen_health_is_out(vllm: Simulator, start: Start) -> None:
    """Two rounds of 2 s without an answer."""
    workers = [start({GPU: vllm.url}) for _ in range(2)]
    all_say(workers, "healthy")
    vllm.knobs(health_delay_ms=60_000)
    all_say(workers, "ejected")
    assert workers[0].view().reason == "/health does not answer in time"


def test_gauges_that_nobody_tells_any_more_are_stale(start: Start) -> None:
    with simulator(first_token_ms=60_000) as vllm:
        worker = start({GPU: vllm.url})
        eventually(lambda: worker.view().load is not None)
        worker.health.stop()
        eventually(lambda: worker.view().load is None)
        assert worker.view().state == "unknown"


# Calls eject, a call readmits


def test_ejection_by_calls_and_its_back_off_are_shared(vllm: Simulator, start: Start) -> None:
    """The prober is content all the time."""
    workers = [start({GPU: vllm.url}) for _ in range(3)]
    all_say(workers, "healthy")
    fail(workers[0], Failure.STATUS_5XX, times=STRIKES)
    eventually(lambda: all(worker.view().readiness == 0 for worker in workers))
    all_say(workers, "trial")
    assert workers[1].board.take_trial(workers[1].backend())
    fail(workers[1], Failure.STATUS_5XX)
    all_say(workers, "ejected")
    records = [worker.board._known[GPU].ejection for worker in workers]
    assert [record and record.step for record in records] == [2, 2, 2]


def test_one_worker_alone_tries_a_returning_backend(vllm: Simulator, start: Start, store: redis.Redis) -> None:
    workers = [start({GPU: vllm.url}) for _ in range(3)]
    all_say(workers, "healthy")
    fail(workers[0], Failure.ENGINE_DEAD)
    eventually(lambda: all(worker.view().readiness == 0 for worker in workers))
    all_say(workers, "trial")
    taken = [worker for worker in workers if worker.board.take_trial(worker.backend())]
    assert len(taken) == 1
    assert not any(worker.board.take_trial(worker.backend()) for worker in workers)
    succeed(taken[0])
    all_say(workers, "healthy")
    assert all(worker.view().readiness < 1 for worker in workers)
    eventually(lambda: not store.exists(trial_key(GPU)))


def test_refused_call_is_confirmed_by_a_second_try_at_once(start: Start) -> None:
    with simulator() as doomed_vllm:
        worker = start({GPU: doomed_vllm.url})
        all_say([worker], "healthy")
        doomed_vllm.kill()
        fail(worker, Failure.REFUSED)
        all_say([worker], "ejected")


def test_refused_call_that_nothing_confirms_ejects_nobody(vllm: Simulator, start: Start) -> None:
    worker = start({GPU: vllm.url})
    all_say([worker], "healthy")
    fail(worker, Failure.REFUSED)
    eventually(lambda: worker.board._known[GPU].strikes == 1)
    assert worker.view().state == "healthy"


def test_gauges_that_stand_still_betray_an_engine_that_hangs(vllm: Simulator, start: Start) -> None:
    """/health stays at 200; the call's own time-out would be minutes away."""
    workers = [start({GPU: vllm.url}) for _ in range(2)]
    all_say(workers, "healthy")
    vllm.knobs(engine_hung=True)
    workers[0].board.note_start(workers[0].backend())
    all_say(workers, "ejected")
    assert all(worker.board.hangs(worker.backend()) for worker in workers)


# What workers tell each other


def test_calls_of_all_workers_are_seen_by_all_and_by_the_drain_command(
    vllm: Simulator, start: Start, store: redis.Redis
) -> None:
    workers = [start({GPU: vllm.url}) for _ in range(2)]
    for worker, calls in zip(workers, (2, 3), strict=True):
        for _ in range(calls):
            worker.board.note_start(worker.backend())
    eventually(lambda: [worker.view().in_flight for worker in workers] == [5, 5])
    assert read(store)[GPU] == 5
    for worker, calls in zip(workers, (2, 3), strict=True):
        for _ in range(calls):
            worker.board.note_end(worker.backend())
    eventually(lambda: read(store)[GPU] == 0)


def test_calls_are_told_between_the_meetings(vllm: Simulator, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """To whoever has calls too: who has none chooses nothing."""
    workers = [start({GPU: vllm.url}) for _ in range(2)]
    for worker in workers:
        worker.board.note_start(worker.backend())
    eventually(lambda: [worker.view().in_flight for worker in workers] == [2, 2])
    monkeypatch.setattr(health, "ROUND_S", 3600.0)  # the round that runs is the last
    for number in range(1, 4):
        workers[0].board.note_start(workers[0].backend())
        eventually(lambda number=number: workers[1].view().in_flight == 2 + number)
    for _ in range(4):
        workers[0].board.note_end(workers[0].backend())
    eventually(lambda: workers[1].view().in_flight == 1)


def test_change_of_the_configuration_is_taken_up(vllm: Simulator, start: Start, store: redis.Redis) -> None:
    worker = start({"old": vllm.url})
    all_say([worker], "healthy", "old")
    worker.configuration = type(worker.configuration)(deployments={}, backends={GPU: worker.configuration.backends["old"]})
    eventually(lambda: [name for name, _, _ in worker.board.totals()] == ["old"])
    eventually(lambda: prober(store, "old") is None)


# Redis


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Callable[[], embedded.Store]]:
    started: list[embedded.Store] = []

    def begin() -> embedded.Store:
        started.append(embedded.start_valkey(tmp_path / "home", durable=False))
        return started[-1]

    yield begin
    for store in started:
        store.stop()


def test_redis_that_goes_and_comes_back_stops_nobody(
    vllm: Simulator, start: Start, own_valkey: Callable[[], embedded.Store]
) -> None:
    """Each worker then probes for itself, ejects and readmits by what it sees; later all agree again."""
    first = own_valkey()
    workers = [start({GPU: vllm.url}, redis_url=first.url) for _ in range(2)]
    all_say(workers, "healthy")
    workers[1].board.note_start(workers[1].backend())
    eventually(lambda: workers[0].view().in_flight == 1)
    first.stop()
    eventually(lambda: workers[0].view().in_flight == 0)  # what others told has aged away
    vllm.knobs(health_status=503)
    all_say(workers, "ejected")
    vllm.knobs(health_status=200)
    all_say(workers, "healthy")
    fail(workers[0], Failure.ENGINE_DEAD)
    all_say(workers[:1], "trial")
    assert workers[0].board.take_trial(workers[0].backend())
    assert workers[1].view().state == "healthy"
    second = own_valkey()
    assert second.url == first.url
    eventually(lambda: workers[0].view().in_flight == 1)
    eventually(lambda: workers[1].view().readiness == 0)


def test_redis_that_is_flushed_is_told_again(vllm: Simulator, start: Start, store: redis.Redis) -> None:
    workers = [start({GPU: vllm.url}) for _ in range(2)]
    all_say(workers, "healthy")
    fail(workers[0], Failure.ENGINE_DEAD)
    eventually(lambda: all(worker.view().readiness == 0 for worker in workers))
    store.flushdb()
    eventually(lambda: store.hexists(EJECTIONS, GPU))
    eventually(lambda: prober(store) in {worker.name for worker in workers})
    assert all(worker.view().readiness == 0 for worker in workers)


def test_what_another_release_wrote_is_passed_over(vllm: Simulator, start: Start, store: redis.Redis) -> None:
    for key in (EJECTIONS, VERDICTS):
        store.hset(key, GPU, b'{"form": "unheard of"}')
        store.hset(key, "unheard-of", b"[")
    store.hset(KEY, "somebody", b"?")
    worker = start({GPU: vllm.url})
    all_say([worker], "healthy")
    assert [name for name, _, _ in worker.board.totals()] == [GPU]
