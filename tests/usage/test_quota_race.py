"""4 processes of 16 threads race for one limit. A watcher inside Redis and the sums afterwards say whether any got through."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from typing import Any

import orjson
import redis
from django.conf import settings

from tests.usage.quota_calls import ACME, KEY, NOW_S, TOKYO, ask, event, limit, whole_quota
from usage.limits import BoundLimit
from usage.partitions import base, journal_key, partition, subject_key
from usage.quota import LEASE_S, Quota
from usage.reservation import Reservation

PROCESSES, THREADS, ROUNDS = 4, 16, 3
MAX_TOKENS = 300_000
SLOTS = 7
GUARD_S = 300  # of a test that hangs

# One atomic look: used and reserved of the counter, what its reservations hold by their own word, and how many these are.
WATCH = """
local reserved, used = 0, 0
local packed = redis.call('GET', KEYS[1])
if packed then reserved, used = struct.unpack('<i8i8', packed, 33) end -- of an hour's tokens: lua/counters.lua
local held, live = 0, redis.call('ZRANGE', KEYS[2], 0, -1)
for _, id in ipairs(live) do
  held = held + tonumber(string.match(redis.call('HGET', ARGV[1] .. 'r:' .. id, 'call'), '^%d+'))
end
return {used, reserved, held, #live}
"""
# What the backend would see: how many calls it has at once, and the most it ever had.
ENTER = """
local now = redis.call('INCR', KEYS[1])
if now > tonumber(redis.call('GET', KEYS[2]) or 0) then redis.call('SET', KEYS[2], now) end
"""


def tokens_race(url: str, seed: int, barrier: Barrier) -> None:
    """Fill the limit, let one call in ten die with its worker, wait for their leases to end, and fill it again."""
    limits = (limit("tokens_per_hour", MAX_TOKENS), limit("tokens_per_day", MAX_TOKENS // 2, mode="shadow"))
    quota = Quota(redis.Redis.from_url(url))
    for turn in range(ROUNDS):
        barrier.wait(GUARD_S)
        now_s = NOW_S + turn * (LEASE_S + 1)
        run_threads(lambda name, turn=turn, now_s=now_s: fill(quota, limits, f"{seed}-{turn}-{name}", now_s))
        barrier.wait(GUARD_S)


def fill(quota: Quota, limits: tuple[BoundLimit, ...], name: str, now_s: float) -> None:
    """Call after call of any size, until nothing fits any more."""
    dice, refusals, largest = random.Random(name), 0, 1000
    number = 0
    while refusals < 5:
        number += 1
        request_id, prompt = f"{name}-{number}", dice.randint(1, 50)
        answer = ask(quota, request_id, limits, prompt=prompt, output=dice.randint(1, largest), now_s=now_s)
        if isinstance(answer, Reservation):
            if dice.random() < 0.1:
                continue  # its worker is killed
            completion = dice.randint(0, answer.tokens - prompt)
            assert quota.settle(answer, event(request_id, prompt, completion), now_s=now_s)
        elif answer.fits_tokens:
            largest = answer.fits_tokens
        else:
            refusals += 1


def slots_race(url: str, seed: int, barrier: Barrier) -> None:
    client = redis.Redis.from_url(url)
    quota = Quota(client)
    barrier.wait(GUARD_S)

    def call_again_and_again(name: int) -> None:
        for number in range(60):
            request_id = f"{seed}-{name}-{number}"
            answer = ask(quota, request_id, (limit("concurrent_requests", SLOTS),))
            if isinstance(answer, Reservation):
                client.eval(ENTER, 2, "at-backend", "most-at-backend")
                client.decr("at-backend")
                quota.settle(answer, event(request_id, 1, 1), now_s=NOW_S)

    run_threads(call_again_and_again)
    barrier.wait(GUARD_S)


def run_threads(work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(name,)) for name in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def racers(work: Callable[[str, int, Barrier], None]) -> Iterator[Barrier]:
    context = get_context("spawn")
    barrier = context.Barrier(PROCESSES + 1)
    processes = [context.Process(target=work, args=(settings.REDIS_URL, seed, barrier)) for seed in range(PROCESSES)]
    for process in processes:
        process.start()
    yield barrier
    for process in processes:
        process.join(GUARD_S)
    assert [process.exitcode for process in processes] == [0] * PROCESSES


@contextmanager
def watcher(client: redis.Redis) -> Iterator[list[Any]]:
    """Look at what the key has used this hour and holds, as often as Redis lets us; what was seen is in the list."""
    subject = subject_key(ACME, "key", KEY)
    seen: list[Any] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.append(client.eval(WATCH, 2, subject + "counters", subject + "live", base(partition(ACME))))

    thread = threading.Thread(target=watch)
    thread.start()
    yield seen
    stop.set()
    thread.join()


def test_nothing_gets_through_a_token_limit_and_nearly_all_of_it_is_usable(valkey: redis.Redis) -> None:
    quota = whole_quota(valkey)
    hour = (limit("tokens_per_hour", MAX_TOKENS),)
    with racers(tokens_race) as barrier, watcher(valkey) as seen:
        for _ in range(ROUNDS):
            barrier.wait(GUARD_S)
            barrier.wait(GUARD_S)
    assert len(seen) > 100
    assert max(used + reserved for used, reserved, _, _ in seen) <= MAX_TOKENS
    assert all(reserved == held for _, reserved, held, _ in seen)
    end_s = NOW_S + ROUNDS * (LEASE_S + 1)
    quota.reap(partition(ACME), now_s=end_s)
    (state,) = quota.state(ACME, hour, time_zone=TOKYO, now_s=end_s)
    assert state.reserved == 0
    assert 0.95 * MAX_TOKENS <= state.used <= MAX_TOKENS
    assert state.used == sum(prompt + completion for prompt, completion in journaled_tokens(valkey))


def test_nothing_gets_through_a_limit_of_slots(valkey: redis.Redis) -> None:
    quota = whole_quota(valkey)
    with racers(slots_race) as barrier, watcher(valkey) as seen:
        barrier.wait(GUARD_S)
        barrier.wait(GUARD_S)
    assert max(live for *_, live in seen) <= SLOTS
    assert 1 < int(valkey.get("most-at-backend")) <= SLOTS
    (state,) = quota.state(ACME, (limit("concurrent_requests", SLOTS),), time_zone=TOKYO, now_s=NOW_S)
    assert state.reserved == 0


def journaled_tokens(client: redis.Redis) -> list[tuple[int, int]]:
    lines = [orjson.loads(fields[b"event"]) for _, fields in client.xrange(journal_key(partition(ACME)))]
    return [(line["prompt_tokens"], line["completion_tokens"]) for line in lines]
