"""Ceilings and the fair wait as calls see them: two workers on a real Valkey, with and without it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings

from gateway.config.documents import Backend, Deployment, PoolMember
from gateway.exceptions import ClientLeft, Overloaded
from gateway.routing.choice import Facts
from gateway.routing.slots import FREE, Slot, Slots
from portal import embedded
from tests.gateway.upstream.scripted import until

ONE = PoolMember(Backend("gpu-1", "http://gpu-1"), 1)
TWO = PoolMember(Backend("gpu-2", "http://gpu-2"), 1)
TINY = Deployment("tiny", "tiny", (ONE, TWO), max_concurrent_calls=1)
APART = Deployment("apart", "tiny", (replace(ONE, max_concurrent_calls=1), replace(TWO, max_concurrent_calls=1)))
BASE = "sekisho:{slots}:"
WAIT_S = 20


class Site:
    """One worker's slots, and calls that ask for them, each in a thread. usable: the members that are not out."""

    def __init__(self, redis_url: str | None, *, queue_max_s: float = WAIT_S, workers: int = 2) -> None:
        self.slots = Slots()
        self.usable: Callable[[Deployment], Any] = lambda deployment: deployment.members
        if redis_url:
            self.slots.start(redis_url, workers=workers, queue_max_s=queue_max_s, usable=self._usable)
        self.thread = threading.Thread(target=self.slots.run, daemon=True)
        self.thread.start()
        self.number = 0

    def call(self, deployment: Deployment = TINY, tenant: str = "acme", **asked: Any) -> "Call":
        self.number += 1
        return Call(self.slots, deployment, tenant, f"{id(self)}-{self.number:06d}", **asked)

    def _usable(self, deployment: Deployment) -> Any:
        return self.usable(deployment)

    def stop(self) -> None:
        self.slots.stop()
        self.thread.join(WAIT_S)


class Call:
    """Asks for a place as ranked() does, in a thread of its own; `backend` or `error` is what it got."""

    def __init__(
        self,
        slots: Slots,
        deployment: Deployment,
        tenant: str,
        id_: str,
        *,
        tokens: int = 100,
        deadline_s: float = 600.0,
        wished: tuple[PoolMember, ...] | None = None,
    ) -> None:
        deadline = time.monotonic() + deadline_s
        self.slot: Slot = slots.slot(deployment, Facts(tenant, id_, 10), tokens=tokens, deadline=deadline)
        self.backend: str | None = None
        self.error: Exception | None = None
        self._ask(wished or deployment.members)

    def _ask(self, wished: tuple[PoolMember, ...], spare: tuple[PoolMember, ...] = ()) -> None:
        self.backend = self.error = None

        def ask() -> None:
            try:
                self.backend = self.slot.at(wished, spare).backend.name
            except (Overloaded, ClientLeft) as error:
                self.error = error

        self.thread = threading.Thread(target=ask, daemon=True)
        self.thread.start()

    def fail_over(self, *wished: PoolMember) -> None:
        self._ask(wished)

    @property
    def is_in(self) -> bool:
        return self.backend is not None

    def wait(self) -> "Call":
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        return self


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def site(valkey: redis.Redis, stack: ExitStack) -> Callable[..., Site]:
    """site(): one more worker."""

    def one(redis_url: str | None = settings.REDIS_URL, **options: Any) -> Site:
        made = Site(redis_url, **options)
        stack.callback(made.stop)
        return made

    return one


def queued(valkey: redis.Redis, deployment: str = "tiny") -> int:
    return int(valkey.hlen(f"{BASE}{deployment}:tickets"))


def held(valkey: redis.Redis, deployment: str = "tiny") -> int:
    return int(valkey.zcard(f"{BASE}{deployment}:live"))


def test_without_a_ceiling_nothing_is_asked(site: Callable[..., Site], valkey: redis.Redis) -> None:
    deployment = replace(TINY, max_concurrent_calls=None)
    slot = site().slots.slot(deployment, Facts("acme", "r", 1), tokens=1, deadline=0)
    assert slot is FREE
    assert slot.at(deployment.members) is ONE
    assert slot.queue_ms == 0
    assert not valkey.keys(f"{BASE}*")


def test_a_slot_that_nobody_asked_a_place_of_costs_nothing(site: Callable[..., Site], valkey: redis.Redis) -> None:
    slot = site().slots.slot(TINY, Facts("acme", "r", 1), tokens=1, deadline=0)
    slot.release()
    assert not valkey.keys(f"{BASE}*")


def test_the_next_call_is_let_in_by_another_worker(site: Callable[..., Site], valkey: redis.Redis) -> None:
    here, there = site(), site()
    first = here.call().wait()
    assert first.is_in
    assert first.slot.queue_ms == 0
    second = there.call()
    until(lambda: queued(valkey) == 1)
    begun_s = time.monotonic()
    first.slot.release()
    second.wait()
    assert second.is_in
    assert 0 <= second.slot.queue_ms <= (time.monotonic() - begun_s + WAIT_S) * 1000
    second.slot.release()
    assert held(valkey) == 0


def test_releasing_twice_frees_one_place(site: Callable[..., Site], valkey: redis.Redis) -> None:
    here = site()
    first = here.call().wait()
    others = [here.call() for _ in range(3)]
    until(lambda: queued(valkey) == 3)
    first.slot.release()
    first.slot.release()
    until(lambda: queued(valkey) == 2)
    assert held(valkey) == 1
    for _ in range(3):
        until(lambda: any(call.is_in for call in others))
        inside = next(call for call in others if call.is_in)
        others.remove(inside)
        inside.slot.release()
    assert held(valkey) == 0


def test_past_the_bound_a_call_is_refused_with_a_time_to_come_back(site: Callable[..., Site], valkey: redis.Redis) -> None:
    here = site(queue_max_s=0.2)
    first = here.call().wait()
    second = here.call().wait()
    assert isinstance(second.error, Overloaded)
    assert second.error.retry_after_s is not None
    assert second.error.retry_after_s > 0
    assert second.slot.queue_ms >= 200
    assert queued(valkey) == 0
    first.slot.release()
    assert here.call().wait().is_in


@pytest.mark.parametrize("queue_max_s", [0.0, 0.1])
def test_a_deployment_says_itself_how_long_calls_wait(site: Callable[..., Site], queue_max_s: float) -> None:
    here = site()
    deployment = replace(TINY, queue_max_s=queue_max_s)
    assert here.call(deployment).wait().is_in
    assert isinstance(here.call(deployment).wait().error, Overloaded)


def test_a_call_waits_no_longer_than_it_lives(site: Callable[..., Site]) -> None:
    here = site()
    assert here.call().wait().is_in
    assert isinstance(here.call(deadline_s=0.1).wait().error, Overloaded)


def test_a_client_that_leaves_gives_its_place_in_the_line_back(site: Callable[..., Site], valkey: redis.Redis) -> None:
    here, there = site(), site()
    first = here.call().wait()
    second = there.call()
    until(lambda: queued(valkey) == 1)
    second.slot.abandon()
    assert isinstance(second.wait().error, ClientLeft)
    assert queued(valkey) == 0
    first.slot.release()
    assert held(valkey) == 0
    second.slot.release()
    assert isinstance(here.call().wait().backend, str)


def test_who_left_before_asking_is_not_let_in(site: Callable[..., Site], valkey: redis.Redis) -> None:
    slot = site().slots.slot(TINY, Facts("acme", "r", 1), tokens=1, deadline=time.monotonic() + 1)
    slot.abandon()
    with pytest.raises(ClientLeft):
        slot.at(TINY.members)
    assert held(valkey) == 0


def test_a_backend_has_a_ceiling_of_its_own(site: Callable[..., Site], valkey: redis.Redis) -> None:
    here = site()
    first, second = here.call(APART).wait(), here.call(APART).wait()
    assert (first.backend, second.backend) == ("gpu-1", "gpu-2")
    third = here.call(APART)
    until(lambda: queued(valkey, "apart") == 1)
    second.slot.release()
    assert third.wait().backend == "gpu-2"


def test_a_call_that_fails_over_waits_for_the_other_backend_and_goes_first(
    site: Callable[..., Site], valkey: redis.Redis
) -> None:
    here, there = site(), site()
    first, second = here.call(APART).wait(), there.call(APART, tenant="globex").wait()
    others = [there.call(APART, tenant="globex") for _ in range(3)]
    until(lambda: queued(valkey, "apart") == 3)
    here.usable = there.usable = lambda deployment: deployment.members[1:]  # gpu-1 fails, and is taken out
    first.fail_over(*APART.members[1:])
    until(lambda: queued(valkey, "apart") == 4)
    assert held(valkey, "apart") == 1
    second.slot.release()
    assert first.wait().backend == "gpu-2"
    assert not any(call.is_in for call in others)


def test_failing_over_below_one_ceiling_for_all_asks_nobody(site: Callable[..., Site]) -> None:
    call = site().call().wait()
    before = call.slot
    call.fail_over(TWO)
    assert call.wait().backend == "gpu-2"
    assert call.slot is before
    assert call.slot.queue_ms == 0


def test_a_backend_that_returns_takes_those_who_wait(site: Callable[..., Site], valkey: redis.Redis) -> None:
    here = site()
    here.usable = lambda deployment: deployment.members[:1]
    assert here.call(APART).wait().backend == "gpu-1"
    slot = here.slots.slot(APART, Facts("acme", "r", 1), tokens=1, deadline=time.monotonic() + WAIT_S)
    waiting = threading.Thread(target=lambda: slot.at(APART.members[:1], APART.members[1:]), daemon=True)
    waiting.start()
    until(lambda: queued(valkey, "apart") == 1)
    here.usable = lambda deployment: deployment.members
    waiting.join(WAIT_S)
    assert not waiting.is_alive()
    assert valkey.hvals(f"{BASE}apart:where") == [b"gpu-1", b"gpu-2"]


def test_a_backend_on_trial_may_have_the_call_that_tries_it(site: Callable[..., Site]) -> None:
    here = site()
    here.usable = lambda deployment: deployment.members[1:]
    assert here.call(APART).wait().backend == "gpu-1"
    assert here.call(APART, wished=APART.members[1:]).wait().backend == "gpu-2"


def test_a_ceiling_that_is_raised_lets_in_more(site: Callable[..., Site], valkey: redis.Redis) -> None:
    here = site()
    assert here.call().wait().is_in
    second = here.call()
    until(lambda: queued(valkey) == 1)
    assert here.call(replace(TINY, max_concurrent_calls=3)).wait().is_in
    assert second.wait().is_in


def test_the_places_and_tickets_of_a_worker_that_vanished_are_let_go(
    site: Callable[..., Site], valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, alive = site(), site()
    assert dead.call().wait().is_in
    dead.call(tenant="globex")
    until(lambda: queued(valkey) == 1)
    dead.stop()
    waiting = alive.call()
    until(lambda: queued(valkey) == 2)
    for leases in ("live", "due"):  # half a minute later
        for id_, end_ms in valkey.zrange(f"{BASE}tiny:{leases}", 0, -1, withscores=True):
            if b"%d-" % id(alive) not in id_:
                valkey.zadd(f"{BASE}tiny:{leases}", {id_: end_ms - 31_000})
    assert waiting.wait().is_in
    assert held(valkey) == 1


def test_a_place_granted_to_a_worker_that_just_died_is_let_go_within_seconds(
    site: Callable[..., Site], valkey: redis.Redis
) -> None:
    dead, alive = site(), site()
    first = alive.call().wait()
    dead.call()
    until(lambda: queued(valkey) == 1)
    dead.stop()
    first.slot.release()
    (lease,) = valkey.zrange(f"{BASE}tiny:live", 0, -1, withscores=True)
    seconds, _ = valkey.time()
    assert lease[1] / 1000 - seconds <= 6


def test_leases_are_renewed_while_a_call_runs(site: Callable[..., Site], valkey: redis.Redis) -> None:
    """Its lease ran out while the worker stalled: the call runs, so it is counted again, above the ceiling if need be."""
    here, there = site(), site()
    first = here.call().wait()
    until(lambda: valkey.zscore(f"{BASE}tiny:live", valkey.zrange(f"{BASE}tiny:live", 0, 0)[0]) is not None)
    here.slots._places._renewed_s = float("-inf")
    (id_,) = valkey.zrange(f"{BASE}tiny:live", 0, 0)
    valkey.zincrby(f"{BASE}tiny:live", -31_000, id_)
    second = there.call().wait()
    assert second.is_in
    until(lambda: held(valkey) in {1, 2})
    here.slots._places._renewed_s = float("-inf")
    until(lambda: held(valkey) == 2)
    first.slot.release()
    second.slot.release()
    until(lambda: held(valkey) == 0)


def test_an_emptied_redis_learns_what_is_held_and_who_waits(site: Callable[..., Site], valkey: redis.Redis) -> None:
    here, there = site(), site()
    first = here.call().wait()
    second = there.call()
    until(lambda: queued(valkey) == 1)
    here.slots._places._renewed_s = float("-inf")
    valkey.flushdb()
    until(lambda: held(valkey) + queued(valkey) >= 1)
    first.slot.release()
    assert second.wait().is_in
    second.slot.release()
    assert held(valkey) == 0


@pytest.fixture
def own(tmp_path: Path) -> Iterator[list[embedded.Store]]:
    """A Valkey that may be frozen and stopped; the running one is the last."""
    stores = [embedded.start_valkey(tmp_path, durable=False)]
    yield stores
    for store in stores:
        if store.process.poll() is None:
            os.kill(store.process.pid, signal.SIGCONT)
            store.stop()


def test_with_redis_out_each_worker_hands_out_its_share(site: Callable[..., Site], own: list[embedded.Store]) -> None:
    here, there = (site(own[0].url, workers=2) for _ in range(2))
    deployment = replace(TINY, max_concurrent_calls=4)
    own[0].stop()
    inside = [worker.call(deployment).wait() for worker in (here, here, there, there)]
    assert all(call.is_in for call in inside)
    waiting = here.call(deployment)
    until(lambda: len(here.slots._places._waiting) == 1)
    assert isinstance(there.call(replace(deployment, queue_max_s=0.1)).wait().error, Overloaded)
    inside[0].slot.release()
    assert waiting.wait().is_in


@pytest.mark.parametrize("way", ["frozen", "killed"])
def test_who_waits_in_a_redis_that_goes_out_waits_on_and_is_told_when_it_is_back(
    site: Callable[..., Site], own: list[embedded.Store], tmp_path: Path, way: str
) -> None:
    here = site(own[0].url, workers=1)
    deployment = replace(TINY, max_concurrent_calls=2)
    inside = [here.call(deployment).wait() for _ in range(2)]
    waiting = [here.call(deployment) for _ in range(3)]
    client = redis.Redis.from_url(own[0].url)
    until(lambda: queued(client) == 3)
    os.kill(own[0].process.pid, signal.SIGSTOP if way == "frozen" else signal.SIGKILL)
    inside[0].slot.release()  # it notices, and all of them wait here from now on
    until(lambda: sum(call.is_in for call in waiting) == 1)
    if way == "frozen":
        os.kill(own[0].process.pid, signal.SIGCONT)
    else:
        own[0].process.wait(WAIT_S)
        own.append(embedded.start_valkey(tmp_path, durable=False))
    client = redis.Redis.from_url(own[-1].url)
    until(lambda: not here.slots._places._is_alone)
    until(lambda: (held(client), queued(client)) == (2, 2))
    inside[1].slot.release()
    until(lambda: sum(call.is_in for call in waiting) == 2)
    for _ in range(2):
        inside_now = [call for call in waiting if call.is_in and call not in inside]
        inside += inside_now
        for call in inside_now:
            call.slot.release()
        until(lambda: all(call.is_in for call in waiting))
    for call in waiting:
        call.slot.release()
    until(lambda: (held(client), queued(client)) == (0, 0))


def test_before_it_is_started_a_worker_hands_out_all_of_it(site: Callable[..., Site]) -> None:
    here = site(None)
    assert here.call().wait().is_in
    assert isinstance(here.call(replace(TINY, queue_max_s=0.0)).wait().error, Overloaded)
