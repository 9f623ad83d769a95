"""A Redis that goes and comes back is told of every call that it missed or lost, before it judges new ones."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import orjson
import pytest
import redis
from uuid_utils.compat import uuid7

from portal import embedded
from tests.usage.quota_calls import ACME, TOKYO, event, limit, whole_quota
from usage import settling as settling_module
from usage.degraded import LocalLimiter
from usage.events import UsageEvent
from usage.limits import BoundLimit
from usage.line import Line
from usage.partitions import alive_key, journal_key, leases_key, partition
from usage.quota import Quota
from usage.reservation import Progress, Refusal, Reservation, skeleton
from usage.settling import RESENDING, Settling
from usage.spool import Spool
from usage.store import StoreUnavailable, connect

NUMBER = partition(ACME)
HOUR = (limit("tokens_per_hour", 1000), limit("requests_per_minute", 60), limit("concurrent_requests", 4))


class Server:
    """A Valkey of this test's own."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._store = embedded.start_valkey(state)
        self.url = self._store.url

    def kill(self) -> None:
        self._store.process.kill()
        self._store.process.wait()

    def start(self, *, empty: bool = False) -> None:
        if empty:
            shutil.rmtree(self._state / "valkey")
        self._store = embedded.start_valkey(self._state)

    def stop(self) -> None:
        self._store.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "server")
    yield running
    running.stop()


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    with connect(server.url) as connected:
        whole_quota(connected)
        yield connected


@pytest.fixture
def worker(client: redis.Redis, tmp_path: Path) -> Settling:
    """One that has met its server."""
    return met(Settling(client, Spool(tmp_path / "spool", max_bytes=2**20), LocalLimiter(1, max_s=60)))


def met(worker: Settling) -> Settling:
    worker._look(0)
    return worker


def look(worker: Settling) -> None:
    worker._look(worker._spool.position)


def ask(
    worker: Settling, *, output: int = 90, serves_on: bool = False, limits: tuple[BoundLimit, ...] = HOUR
) -> Reservation | Refusal:
    request_id = str(uuid7())
    return worker.reserve(
        request_id, ACME, limits, prompt_tokens=10, output_tokens=output, cost_nano=0, time_zone=TOKYO,
        meta=skeleton(ended(request_id)), serves_on=serves_on,
    )  # fmt: skip


def admitted(worker: Settling, **asked: Any) -> Reservation:
    answer = ask(worker, **asked)
    assert isinstance(answer, Reservation)
    return answer


def ended(request_id: str, limits: tuple[BoundLimit, ...] = HOUR) -> UsageEvent:
    """Of 100 tokens."""
    seen = [{"subject": b.subject, "name": b.subject_id, "limit": b.limit.name} for b in limits]
    return event(request_id, 10, 90, created_s=time.time(), limits=seen)


def end(worker: Settling, reservation: Reservation) -> None:
    worker.settle(reservation, ended(reservation.request_id))


def standing(client: redis.Redis) -> list[tuple[int, int]]:
    return [(s.used, s.reserved) for s in Quota(client).state(ACME, HOUR, time_zone=TOKYO, now_s=time.time())]


def lines(client: redis.Redis) -> list[dict[str, Any]]:
    return [orjson.loads(fields[b"event"]) for _, fields in client.xrange(journal_key(NUMBER))]


def journaled(client: redis.Redis) -> list[str]:
    return [line["request_id"] for line in lines(client)]


def age(client: redis.Redis, *reservations: Reservation) -> None:
    """Their leases have run out."""
    for leases in (leases_key(NUMBER), *client.keys("*:live")):
        for one in reservations:
            client.zadd(leases, {one.request_id: (time.time() - 1) * 1000}, xx=True)


def forget(client: redis.Redis, reservation: Reservation) -> None:
    """As if Redis had never heard of the call: it is restarted from what it held before."""
    client.delete(f"sekisho:{{p{NUMBER:02d}}}:s:{reservation.request_id}", journal_key(NUMBER))


def told(looping: Settling) -> None:
    """What is on its way to Redis has come there."""
    deadline = time.monotonic() + 20
    while looping._spool.state().pending_lines:
        assert time.monotonic() < deadline
        gevent.sleep(0.01)


def until(check: Callable[[], bool], worker: Settling) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        look(worker)
        time.sleep(0.02)


def test_what_ended_while_redis_was_out_is_counted_when_it_is_back(
    worker: Settling, server: Server, client: redis.Redis
) -> None:
    held = admitted(worker, serves_on=True)
    server.kill()
    end(worker, held)
    alone = [admitted(worker, serves_on=True) for _ in range(2)]
    end(worker, alone[0])
    worker.hold(alone[1].request_id, lambda: Progress(alone[1], 5))
    server.start()
    look(worker)
    assert Quota(client).is_alive(NUMBER)
    assert standing(client) == [(200, 100), (3, 0), (0, 1)]
    end(worker, alone[1])
    look(worker)
    assert standing(client) == [(300, 0), (3, 0), (0, 0)]
    assert sorted(journaled(client)) == sorted(call.request_id for call in (held, *alone))


@pytest.mark.parametrize("serves_on", [False, True])
def test_a_call_that_ended_while_redis_was_out_is_not_taken_for_a_lost_one(
    worker: Settling, client: redis.Redis, serves_on: bool
) -> None:
    """Its lease is dead when Redis is back, and calls of its key come first: they do not post it with its upper bounds."""
    ended_call, gone, live = admitted(worker), admitted(worker), admitted(worker)
    worker.hold(live.request_id, lambda: Progress(live, 5))
    worker._is_out = True
    worker.settle(ended_call, event(ended_call.request_id, 4, 30, created_s=time.time(), limits=ended(live.request_id).limits))
    age(client, ended_call, gone)
    client.delete(f"sekisho:{{p{NUMBER:02d}}}:r:{live.request_id}")  # as in a Redis that is a second behind: it is held again
    worker._is_returning, worker._is_out = True, False
    worker._renew()
    ask(worker, serves_on=serves_on)
    assert journaled(client) == []
    look(worker)
    assert [(e["request_id"], e["prompt_tokens"], e["completion_tokens"]) for e in lines(client)] == [
        (ended_call.request_id, 4, 30)
    ]
    until(lambda: not worker._is_returning, worker)
    ask(worker, serves_on=serves_on)
    assert journaled(client) == [ended_call.request_id, gone.request_id], "its own lease, which nobody renews, is lost"


def test_what_redis_lost_is_sent_again_however_long_it_was_out(
    worker: Settling, server: Server, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling_module, "BEHIND_S", 0.5)
    lost = admitted(worker)
    end(worker, lost)
    look(worker)
    forget(client, lost)
    server.kill()
    time.sleep(1)  # longer than what is doubted
    look(worker)
    server.start()
    look(worker)
    assert journaled(client) == [lost.request_id]
    assert not Quota(client).is_alive(NUMBER), "its counters lack the call"


def test_a_redis_that_came_back_empty_is_known_as_such_though_the_configuration_is_there_again(
    worker: Settling, server: Server, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling_module, "BEHIND_S", 0.1)
    calls = [admitted(worker) for _ in range(3)]
    for call in calls[:2]:
        end(worker, call)
    worker.hold(calls[2].request_id, lambda: Progress(calls[2], 5))
    time.sleep(0.5)  # longer than what a Redis that has its data is taken to have lost
    look(worker)
    server.kill()
    server.start(empty=True)
    client.set("sekisho:config:marker", "published")
    look(worker)
    assert journaled(client) == [call.request_id for call in calls[:2]]
    whole_quota(client)
    assert standing(client)[2] == (0, 1), "who restores the counters finds the live call held"


def test_a_new_worker_sends_what_a_dead_one_left_to_a_redis_that_was_restarted_too(
    worker: Settling, server: Server, client: redis.Redis, tmp_path: Path
) -> None:
    call = admitted(worker)
    end(worker, call)
    assert worker.stop() == 0
    server.kill()
    server.start(empty=True)
    met(Settling(client, Spool(tmp_path / "spool", max_bytes=2**20), LocalLimiter(1, max_s=60)))
    assert journaled(client) == [call.request_id]


def test_a_restarted_redis_judges_no_call_before_every_worker_has_told_it(
    worker: Settling, server: Server, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.kill()
    server.start()
    client.zadd(RESENDING, {"another": time.time() + 3600})
    monkeypatch.setattr(settling_module, "RETURN_S", 0.1)
    look(worker)
    time.sleep(0.2)
    look(worker)
    with pytest.raises(StoreUnavailable):
        ask(worker)
    assert admitted(worker, serves_on=True).states[0].reserved == 100
    assert standing(client)[0] == (0, 100), "Redis knows of who is served on"
    client.zadd(RESENDING, {"another": time.time() - 1})  # it died
    look(worker)
    admitted(worker)


def test_a_redis_that_only_did_not_answer_judges_at_once_who_is_not_served_without_it(worker: Settling) -> None:
    worker._is_out = True
    look(worker)
    admitted(worker)


def test_who_is_served_on_keeps_to_the_share_and_to_what_redis_knows_until_it_judges_alone(
    worker: Settling, client: redis.Redis
) -> None:
    worker._is_out = True
    look(worker)
    taken = [admitted(worker) for _ in range(3)]  # by a worker that did not miss anything
    admitted(worker, serves_on=True)
    answer = ask(worker, serves_on=True)
    assert isinstance(answer, Refusal)
    assert answer.by.bound.limit.name == "concurrent_requests"
    end(worker, taken[0])
    admitted(worker, serves_on=True)
    assert standing(client)[2] == (0, 4)


def test_calls_that_end_while_counters_are_restored_are_told_right_after(worker: Settling, client: redis.Redis) -> None:
    call = admitted(worker)
    client.delete(alive_key(NUMBER))
    quota = Quota(client)
    quota.begin_counting(NUMBER)
    end(worker, call)
    look(worker)
    assert journaled(client) == []
    with pytest.raises(StoreUnavailable):
        ask(worker)
    assert quota.mark_alive(NUMBER, journal_end="0-0", now_s=time.time())
    admitted(worker)  # Redis was never taken to be out
    look(worker)
    assert journaled(client) == [call.request_id]
    assert standing(client)[0] == (100, 100)


@pytest.fixture
def looping(client: redis.Redis, tmp_path: Path) -> Settling:
    """A worker with a loop, as the gateway's are."""
    line = Line(client, timeout_s=20)
    return met(Settling(client, Spool(tmp_path / "looping", max_bytes=2**20), LocalLimiter(1, max_s=60), line))


def test_a_call_that_no_limit_could_refuse_does_not_wait_for_redis(looping: Settling, client: redis.Redis) -> None:
    looping.settle(None, ended(request_id := str(uuid7())))
    assert looping._spool.state().pending_lines == 1
    told(looping)
    assert journaled(client) == [request_id]


def is_settled_at_once(looping: Settling, client: redis.Redis, limits: tuple[BoundLimit, ...]) -> bool:
    held = admitted(looping, limits=limits)
    looping.settle(held, ended(held.request_id))
    return looping._spool.state().pending_lines == 0 and journaled(client)[-1:] == [held.request_id]


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(HOUR, id="small ones"),
        pytest.param((limit("tokens_per_hour", 33 * 100 - 1), limit("tokens_per_day", 10**9)), id="one of two"),
        pytest.param((limit("concurrent_requests", 32),), id="slots"),
    ],
)
def test_a_call_under_a_limit_that_may_soon_refuse_is_settled_at_once(
    looping: Settling, client: redis.Redis, limits: tuple[BoundLimit, ...]
) -> None:
    assert is_settled_at_once(looping, client, limits)


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param((limit("tokens_per_hour", 33 * 100), limit("concurrent_requests", 33)), id="room for 32 more"),
        pytest.param(
            (limit("tokens_per_hour", 100, mode="shadow"), limit("tokens_per_day", 10**9)), id="the small one is a shadow"
        ),
    ],
)
def test_a_call_under_limits_with_much_room_does_not_wait_for_redis(
    looping: Settling, client: redis.Redis, limits: tuple[BoundLimit, ...]
) -> None:
    assert not is_settled_at_once(looping, client, limits)
    told(looping)
    [state, *_] = Quota(client).state(ACME, limits, time_zone=TOKYO, now_s=time.time())
    assert (state.used, state.reserved) == (100, 0)


def test_a_server_that_has_forgotten_the_script_is_told_again(looping: Settling, client: redis.Redis) -> None:
    client.script_flush()
    looping.settle(None, ended(request_id := str(uuid7())))
    told(looping)
    assert journaled(client) == [request_id]


def test_calls_on_their_way_when_the_server_dies_are_told_to_the_next(
    looping: Settling, server: Server, client: redis.Redis
) -> None:
    wide = (limit("tokens_per_hour", 10**9),)
    held = [admitted(looping, limits=wide) for _ in range(20)]
    server.kill()
    for one in held:
        looping.settle(one, ended(one.request_id, wide))
    server.start()
    until(lambda: not looping._spool.state().pending_lines, looping)
    assert sorted(set(journaled(client))) == sorted(one.request_id for one in held)


def test_what_is_on_its_way_when_the_worker_ends_is_sent(looping: Settling, client: redis.Redis) -> None:
    ids = [str(uuid7()) for _ in range(250)]
    for request_id in ids:
        looping.settle(None, ended(request_id))
    assert looping.stop() == 0
    assert sorted(set(journaled(client))) == sorted(ids)


def test_more_is_owed_than_is_remembered(
    worker: Settling, server: Server, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a forgotten call held is not known: the counters are restored."""
    monkeypatch.setattr(settling_module, "OWED_MAX", 1)
    server.kill()
    for _ in range(2):
        end(worker, admitted(worker, serves_on=True))
    server.start()
    look(worker)
    assert len(journaled(client)) == 2
    assert not Quota(client).is_alive(NUMBER)
