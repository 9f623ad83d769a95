"""What the quota costs Redis: .venv/bin/python -m tests.bench.quota

Microseconds inside a Valkey of its own, by its own clock (INFO commandstats and latencystats): neither network nor Python.
The least p10 of the rounds comes closest to an idle machine. The yardstick, a script of 20 GETs, tells machines apart.
"""

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings.test")

import redis

from portal import embedded
from tests.usage.quota_calls import ACME, NOW_S, admitted, ask, event, limit, refused, whole_quota
from usage.quota import Progress
from usage.reservation import skeleton

ROUNDS = 60
CALLS = 100  # live at once
EIGHT = (
    limit("requests_per_minute", 10**6),
    limit("tokens_per_hour", 600 * CALLS),
    limit("tokens_per_day", 10**10),
    limit("concurrent_requests", 10**6),
    limit("requests_per_minute", 10**8, subject="alias", subject_id="general"),
    limit("tokens_per_hour", 10**12, subject="alias", subject_id="general"),
    limit("tokens_per_month", 10**12, subject="tenant", subject_id=ACME),
    limit("money_per_month", 10**15, subject="tenant", subject_id=ACME),
)

Samples = dict[str, list[tuple[float, float, float]]]


def measure(client: redis.Redis, samples: Samples, name: str, work: Callable[[int], Any]) -> None:
    """Note what CALLS runs of `work`, each one script, took inside Redis: p10, p50 and the mean."""
    client.config_resetstat()
    for number in range(CALLS):
        work(number)
    info: dict[str, Any] = client.info("all")
    of = info["latency_percentiles_usec_evalsha"]
    samples[name].append((of["p10"], of["p50"], info["cmdstat_evalsha"]["usec_per_call"]))


def one_round(client: redis.Redis, turn: int, samples: Samples) -> None:
    """CALLS calls reserve, as many more are refused, the first are renewed and settled; over an hour after the last round."""
    quota, now_s = whole_quota(client), NOW_S + 4000 * turn
    yardstick = client.script_load("local c = redis.call for i = 1, 20 do c('GET', KEYS[1]) end return 1")
    ids = [str(UUID(int=turn * CALLS + number)) for number in range(CALLS)]
    held, meta = {}, skeleton(event(ids[0], metadata={"team": "search", "job": "nightly"}, limits=[]))

    def reserve(number: int) -> None:
        held[number] = admitted(ask(quota, ids[number], EIGHT, now_s=now_s + number / 20, meta=meta))

    def settle(number: int) -> None:
        quota.settle(held[number], event(ids[number], 90, number), now_s=now_s + 10 + number / 20)

    def refuse(number: int) -> None:
        refused(ask(quota, f"no-{number}", EIGHT, now_s=now_s + 5, meta=meta))

    measure(client, samples, "yardstick: 20 GETs in a script", lambda _: client.evalsha(yardstick, 1, "k"))
    measure(client, samples, "reserve, 8 limits", reserve)
    measure(client, samples, "  refused for a reservation", refuse)
    measure(client, samples, "renew", lambda n: quota.renew([Progress(held[n], n)], now_s=now_s + 8))
    measure(client, samples, "settle, 8 limits, and journal", settle)
    measure(client, samples, "settle without limits", lambda n: quota.settle(None, event(f"_{ids[n]}", 9, 9), now_s=now_s))


def main() -> None:
    samples: Samples = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        store = embedded.start_valkey(Path(folder), durable=False)
        try:
            with redis.Redis.from_url(store.url) as client:
                client.config_set("latency-tracking-info-percentiles", "10 50")
                for turn in range(ROUNDS):
                    one_round(client, turn, samples)
        finally:
            store.stop()
    for name, rounds in samples.items():
        least, typical = (min(p10 for p10, _, _ in rounds), sorted(p50 for _, p50, _ in rounds)[len(rounds) // 2])
        mean = sum(mean for _, _, mean in rounds) / len(rounds)
        print(f"{name:32} least p10 {least:6.1f} us   typical p50 {typical:6.1f} us   mean {mean:6.1f} us")


if __name__ == "__main__":
    main()
