"""Exchange: how the boards of all workers meet, in one round trip to Redis a second; of calls they tell more often.

Keys, all with JSON inside:

sekisho:backends:in_flight        hash: worker -> its calls at each backend (in_flight.py)
sekisho:backends:verdicts         hash: backend -> its prober's last Verdict
sekisho:backends:ejections        hash: backend -> its last Ejection
sekisho:backends:prober:<name>    which worker probes it; a lease
sekisho:backends:trial:<name>     which worker tries it with a call; a lease
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson
import redis

from gateway.routing import in_flight
from gateway.routing.board import TRIAL_S, News
from gateway.routing.ejection import Ejection
from gateway.routing.known import Known
from gateway.routing.verdicts import Verdict
from usage.store import RedisError, StoreUnavailable

VERDICTS: Final = "sekisho:backends:verdicts"
EJECTIONS: Final = "sekisho:backends:ejections"
# As long as a worker is believed to live without a sign of it, so that its share of the probing falls to the others at once.
LEASE_S: Final = in_flight.STALE_S
LEASE_MS: Final = int(LEASE_S * 1000)
KEPT_S: Final = 3600  # what nobody writes any more
GONE_S: Final = 60.0  # after which a dead worker's field is taken away
# Two workers may change the same record within a second: the older change must not come to lie over the newer one.
_PUT_IF_NEWER: Final = """
local held = redis.call('HGET', KEYS[1], ARGV[1])
local is_readable, record = pcall(cjson.decode, held or '{}')
record = is_readable and type(record) == 'table' and record or {}
local changed_s, tie_break = tonumber(record['changed_s']) or -1, tonumber(record['tie_break']) or -1
local new_changed_s, new_tie_break = tonumber(ARGV[3]), tonumber(ARGV[4])
if changed_s < new_changed_s or (changed_s == new_changed_s and tie_break < new_tie_break) then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
"""
_T = TypeVar("_T")


def prober_key(name: str) -> str:
    return f"sekisho:backends:prober:{name}"


def trial_key(name: str) -> str:
    return f"sekisho:backends:trial:{name}"


@dataclass(frozen=True, slots=True)
class Told:
    """What came back. now_s: by Redis' clock. probers: backend -> worker, of those asked about. workers: that live."""

    now_s: float
    in_flight: Mapping[str, int]
    verdicts: Mapping[str, Verdict]
    ejections: Mapping[str, Ejection]
    probers: Mapping[str, str]
    workers: int


@dataclass(frozen=True, slots=True)
class Seen:
    """now_s: by Redis' clock. known: what was told of each backend, its calls left out. workers: that live."""

    now_s: float
    in_flight: Mapping[str, int]
    known: Mapping[str, Known]
    workers: int


class Exchange:
    """worker: a name that no other worker has, or had."""

    def __init__(self, client: redis.Redis, worker: str) -> None:
        self._redis = client
        self.worker = worker
        self._dead: list[bytes] = []  # workers whose fields nobody writes any more

    def trip(
        self, news: News, *, now_s: float, held: Collection[str], wanted: Collection[str], released: Iterable[str]
    ) -> Told:
        """Tell `news`, hear the others' and settle who probes what, in one round trip. Raises StoreUnavailable.

        now_s: what the clock of Redis should show. held: backends that this worker probes, and goes on to; wanted: those
        that it would also probe, if nobody does; released: those it leaves to others.
        """
        asked = [*held, *wanted]
        pipe = self._redis.pipeline(transaction=False)
        pipe.time()
        for name in asked:
            pipe.set(prober_key(name), self.worker, nx=True, get=True, px=LEASE_MS)
        for name in held:
            pipe.pexpire(prober_key(name), LEASE_MS)  # had it lapsed, another's lease grows by a second: no harm
        for key in [*map(prober_key, released), *map(trial_key, news.ended_trials)]:
            pipe.delete(key)
        for worker in self._dead:
            pipe.hdel(in_flight.KEY, worker)
        pipe.hset(in_flight.KEY, self.worker, in_flight.encode(news.in_flight, at_s=now_s))
        if news.verdicts:
            pipe.hset(VERDICTS, mapping={name: _encoded(verdict) for name, verdict in news.verdicts.items()})
            pipe.expire(VERDICTS, KEPT_S)
        for name, ejection in news.ejections.items():
            pipe.eval(_PUT_IF_NEWER, 1, EJECTIONS, name, _encoded(ejection), *map(repr, ejection.version))
            pipe.expire(EJECTIONS, KEPT_S)
        for key in (in_flight.KEY, VERDICTS, EJECTIONS):
            pipe.hgetall(key)
        try:
            replies = pipe.execute()
        except RedisError as error:
            raise StoreUnavailable(type(error).__name__) from error
        return self._told(replies, asked)

    def tell_calls(self, calls: Mapping[str, int], *, now_s: float) -> Mapping[str, int]:
        """Tell of our calls, by backend, and hear of those of the others. Raises StoreUnavailable."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.hset(in_flight.KEY, self.worker, in_flight.encode(calls, at_s=now_s))
        pipe.hgetall(in_flight.KEY)
        try:
            _, workers = pipe.execute()
        except RedisError as error:
            raise StoreUnavailable(type(error).__name__) from error
        return in_flight.totals(workers, now_s=now_s, without=self.worker)

    def claim_trial(self, name: str) -> bool:
        """Is the trial of this backend ours? Raises StoreUnavailable."""
        try:
            return bool(self._redis.set(trial_key(name), self.worker, nx=True, px=int(TRIAL_S * 1000)))
        except RedisError as error:
            raise StoreUnavailable(type(error).__name__) from error

    def leave(self, held: Collection[str]) -> None:
        """The worker ends: its backends are probed by others from now on. With Redis out they wait for the lease to lapse."""
        pipe = self._redis.pipeline(transaction=False)
        for name in held:
            pipe.delete(prober_key(name))
        pipe.hdel(in_flight.KEY, self.worker)
        with suppress(RedisError):
            pipe.execute()

    def _told(self, replies: list[Any], asked: Collection[str]) -> Told:
        (seconds, microseconds), owners = replies[0], replies[1 : 1 + len(asked)]
        now_s = seconds + microseconds / 1e6
        workers, verdicts, ejections = replies[-3:]
        ages = {worker: now_s - _at_s(body) for worker, body in workers.items()}
        self._dead = [worker for worker, age_s in ages.items() if age_s > GONE_S]
        return Told(
            now_s=now_s,
            in_flight=in_flight.totals(workers, now_s=now_s, without=self.worker),
            verdicts=_read(Verdict.from_dict, verdicts),
            ejections=_read(Ejection.from_dict, ejections),
            # SET with NX and GET answers with the value that was there: nothing, where ours now is.
            probers={name: owner.decode() if owner else self.worker for name, owner in zip(asked, owners, strict=True)},
            workers=sum(abs(age_s) <= in_flight.STALE_S for age_s in ages.values()),
        )


def look(client: redis.Redis) -> Seen:
    """What all workers have told, for people to see; one round trip. Raises RedisError."""
    pipe = client.pipeline(transaction=False)
    pipe.time()
    for key in (in_flight.KEY, VERDICTS, EJECTIONS):
        pipe.hgetall(key)
    (seconds, microseconds), workers, verdicts, ejections = pipe.execute()
    now_s = seconds + microseconds / 1e6
    told, held = _read(Verdict.from_dict, verdicts), _read(Ejection.from_dict, ejections)
    return Seen(
        now_s=now_s,
        in_flight=in_flight.totals(workers, now_s=now_s),
        known={name: Known(verdict=told.get(name), ejection=held.get(name)) for name in {*told, *held}},
        workers=sum(abs(now_s - _at_s(body)) <= in_flight.STALE_S for body in workers.values()),
    )


def _encoded(record: Verdict | Ejection) -> bytes:
    return orjson.dumps(record.to_dict())


def _read(load: Callable[[Mapping[str, Any]], _T], entries: Mapping[bytes, bytes]) -> dict[str, _T]:
    """What another release wrote in another form is left out."""
    records = {}
    for name, body in entries.items():
        with suppress(ValueError, KeyError, TypeError):
            records[name.decode()] = load(orjson.loads(body))
    return records


def _at_s(body: bytes) -> float:
    try:
        return float(orjson.loads(body)["at"])
    except (ValueError, KeyError, TypeError):
        return float("-inf")
