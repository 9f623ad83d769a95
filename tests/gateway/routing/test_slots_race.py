"""Workers in processes of their own race for few places, and one of them is killed: what the backends see of it."""

import os
import random
import signal
import threading
import time
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier

import redis
from django.conf import settings

from gateway.config.documents import Backend, Deployment, PoolMember
from gateway.exceptions import ClientLeft, Overloaded
from gateway.routing.choice import Facts
from gateway.routing.slots import LimitedSlot, Slots

PROCESSES, THREADS, CALLS = 4, 10, 40
CEILING, CEILINGS = 7, {"gpu-1": 3, "gpu-2": 5}
MEMBERS = tuple(PoolMember(Backend(name, f"http://{name}"), 1, 0, most) for name, most in CEILINGS.items())
TINY = Deployment("tiny", "tiny", MEMBERS, max_concurrent_calls=CEILING)
BASE = "sekisho:{slots}:tiny:"
GUARD_S = 300  # of a test that hangs

# What the backends see: who is there, and the most there ever were.
ENTER = """
for i = 1, 2 do
  redis.call('SADD', KEYS[i], ARGV[1])
  local now = redis.call('SCARD', KEYS[i])
  if now > tonumber(redis.call('HGET', 'most', KEYS[i]) or 0) then redis.call('HSET', 'most', KEYS[i], now) end
end
redis.call('INCR', 'entered')
return tonumber(redis.call('HGET', 'most', KEYS[1]))
"""


def worker(url: str, name: str, barrier: Barrier) -> None:
    """Calls in threads, until each has made its own; the doomed worker's never end."""
    slots = Slots()
    slots.start(url, workers=PROCESSES, queue_max_s=GUARD_S, usable=lambda deployment: deployment.members)
    threading.Thread(target=slots.run, daemon=True).start()
    client = redis.Redis.from_url(url)
    barrier.wait(GUARD_S)

    def call_again_and_again(thread: int) -> None:
        dice = random.Random(f"{name}-{thread}")
        number = 0
        while number < CALLS or name == "doomed":
            number += 1
            call_once(client, slots, f"{name}-{thread}-{number}", dice)

    threads = [threading.Thread(target=call_again_and_again, args=(thread,), daemon=True) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    slots.stop()


def call_once(client: redis.Redis, slots: Slots, id_: str, dice: random.Random) -> None:
    """At one backend, at times at the other after it, or its client leaves, or it does not wait for long."""
    deployment = TINY if dice.random() < 0.9 else Deployment("tiny", "tiny", MEMBERS, None, False, CEILING, queue_max_s=0.01)
    facts = Facts(dice.choice(("acme", "globex")), id_, 10)
    deadline = time.monotonic() + GUARD_S
    slot = slots.slot(deployment, facts, tokens=dice.randint(1, 1000), deadline=deadline)
    assert isinstance(slot, LimitedSlot)
    leaves = threading.Timer(dice.random() * 0.05, slot.abandon)
    if dice.random() < 0.2:
        leaves.start()
    with slot, suppress(Overloaded, ClientLeft):
        wished = dice.sample(MEMBERS, dice.randint(1, 2))
        for _ in range(dice.choice((1, 1, 2))):
            at = slot.at(wished)
            most = client.eval(ENTER, 2, "at-all", f"at-{at.backend.name}", id_)
            while most < CEILING and time.monotonic() < deadline:  # the first ones stay until every place is used
                time.sleep(0.002)
                most = int(client.hget("most", "at-all"))
            if dice.random() < 0.5:
                time.sleep(dice.random() * 0.005)
            client.srem("at-all", id_)
            client.srem(f"at-{at.backend.name}", id_)
            wished = [member for member in MEMBERS if member is not at]
    leaves.cancel()


def test_no_ceiling_is_ever_passed_and_no_place_is_lost(valkey: redis.Redis) -> None:
    context = get_context("spawn")
    barrier = context.Barrier(PROCESSES + 1)
    names = [*(f"worker{number}" for number in range(PROCESSES - 1)), "doomed"]
    processes = [context.Process(target=worker, args=(settings.REDIS_URL, name, barrier)) for name in names]
    for process in processes:
        process.start()
    barrier.wait(GUARD_S)
    while int(valkey.get("entered") or 0) < 300:
        time.sleep(0.01)
    os.kill(processes[-1].pid or 0, signal.SIGKILL)
    processes[-1].join(GUARD_S)
    bury(valkey)
    for process in processes[:-1]:
        process.join(GUARD_S)
    assert [process.exitcode for process in processes] == [0] * (PROCESSES - 1) + [-signal.SIGKILL]
    bury(valkey)
    most = {name.decode(): int(count) for name, count in valkey.hgetall("most").items()}
    assert most["at-all"] == CEILING
    assert all(most[f"at-{name}"] <= ceiling for name, ceiling in CEILINGS.items())
    slots = Slots()
    slots.start(settings.REDIS_URL, workers=1, queue_max_s=0, usable=lambda deployment: deployment.members)
    held = [slots.slot(TINY, Facts("acme", f"last-{n}", 1), tokens=1, deadline=time.monotonic() + 60) for n in range(CEILING)]
    for slot in held:
        slot.at(MEMBERS)
    for slot in held:
        slot.release()
    for kind in ("live", "where", "tickets", "due", "lines", "lengths", "at:gpu-1", "at:gpu-2"):
        assert not valkey.exists(BASE + kind), kind


def bury(valkey: redis.Redis) -> None:
    """The calls of the dead worker are gone from the backends with its connections; its leases end half a minute later."""
    for key in ("at-all", "at-gpu-1", "at-gpu-2"):
        for id_ in valkey.smembers(key):
            if id_.startswith(b"doomed"):
                valkey.srem(key, id_)
    for leases in ("live", "due"):
        for id_ in valkey.zrange(BASE + leases, 0, -1):
            if id_.startswith(b"doomed"):
                valkey.zadd(BASE + leases, {id_: -31_000}, xx=True, incr=True)
