"""What admission and settlement cost a gateway worker, in CPU of its own: .venv/bin/python -m tests.bench.holding

32 greenlets at once ask a Valkey of this bench over one line, as calls do: reserve, then settle (events of the shape that calls
have, the spool on this disk). Valkey's own time is in tests.bench.quota. A null command over the same line is the yardstick.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gevent import monkey

monkey.patch_all()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings.test")

import gevent  # noqa: E402 - patched first
import redis  # noqa: E402
from gevent.pool import Pool  # noqa: E402
from uuid_utils.compat import uuid7  # noqa: E402

from portal import embedded  # noqa: E402
from tests.usage.quota_calls import ACME, TOKYO, event, limit, whole_quota  # noqa: E402
from usage.degraded import LocalLimiter  # noqa: E402
from usage.limits import NAMES, Bound  # noqa: E402
from usage.line import Line  # noqa: E402
from usage.reservation import Reservation, skeleton  # noqa: E402
from usage.scripts import Run  # noqa: E402
from usage.settling import Settling  # noqa: E402
from usage.spool import Spool  # noqa: E402
from usage.store import connect  # noqa: E402

CALLS = 500
AT_ONCE = 32
ROUNDS = 4
BIG = 10**12
LIMITS = {
    "no limits": Bound(()),
    "6 limits": Bound(limit(name, BIG) for name in NAMES),
    "18 limits": Bound(
        limit(name, BIG, subject=subject, subject_id=of)
        for subject, of in (("key", "k"), ("alias", "general"), ("tenant", ACME))
        for name in NAMES
    ),
}


def cpu_us(
    step: Callable[[str], Any], ids: list[str], *, are_on_their_way: Callable[[], bool] = lambda: False
) -> tuple[float, dict[str, Any]]:
    """Of one call, and what each answered. are_on_their_way: some, of which nobody waits for the reply."""
    pool, answers = Pool(AT_ONCE), {}

    def one(request_id: str) -> None:
        answers[request_id] = step(request_id)

    began = time.process_time()
    for request_id in ids:
        pool.spawn(one, request_id)
    pool.join()
    while are_on_their_way():
        gevent.sleep(0.001)
    return (time.process_time() - began) / len(ids) * 1e6, answers


def one_round(settling: Settling, limits: Bound) -> tuple[float, float]:
    ids = [str(uuid7()) for _ in range(CALLS)]

    def reserve(request_id: str) -> Any:
        return settling.reserve(
            request_id, ACME, limits, prompt_tokens=100, output_tokens=500, cost_nano=1, time_zone=TOKYO,
            meta=skeleton(event(request_id)), serves_on=False,
        )  # fmt: skip

    reserving, held = cpu_us(reserve, ids)
    assert all(isinstance(one, Reservation) for one in held.values())
    settled, _ = cpu_us(
        lambda request_id: settling.settle(held[request_id], event(request_id, 90, 100)),
        ids,
        are_on_their_way=lambda: bool(settling._spool.state().pending_lines) and not settling._is_out,
    )
    return reserving, settled


def measure(client: redis.Redis, folder: Path) -> None:
    line = Line(client, timeout_s=20)  # a busy machine is no frozen server
    ids = [str(number) for number in range(CALLS)]
    command = Run((), ()).packed("EVAL", "return 1")
    null = min(cpu_us(lambda _: line.ask(command), ids)[0] for _ in range(ROUNDS))
    sys.stdout.write(f"{'yardstick: a null command':28}{null:8.1f} us\n")
    settling = Settling(client, Spool(folder / "spool", max_bytes=1 << 30), LocalLimiter(1, max_s=60), line)
    for name, limits in LIMITS.items():
        rounds = [one_round(settling, limits) for _ in range(ROUNDS)]
        reserving, settled = (min(part) for part in zip(*rounds, strict=True))
        sys.stdout.write(f"{name:28}reserve {reserving:8.1f} us   settle {settled:8.1f} us\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = embedded.start_valkey(Path(folder), durable=False)
        try:
            with connect(store.url) as client:
                whole_quota(client)
                measure(client, Path(folder))
        finally:
            store.stop()


if __name__ == "__main__":
    main()
