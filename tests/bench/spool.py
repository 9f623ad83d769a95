"""What a line in the spool costs. A bare os.write of the same bytes is the yardstick between machines.

.venv/bin/python -m tests.bench.spool [folder]
"""

import os
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

from gevent import monkey

from usage.spool import Spool

LINE = b'{"event":"%b"}' % (b"x" * 288)
ROUND = 5_000
ROUNDS = 15


def cpu_us(step: Callable[[], object]) -> float:
    """The least of the rounds: other work on the machine only ever adds."""
    return min(timeit.repeat(step, number=ROUND, repeat=ROUNDS, timer=time.process_time)) / ROUND * 1e6


def bare_write_us(folder: Path) -> float:
    fd = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        return cpu_us(lambda: os.write(fd, LINE))
    finally:
        os.close(fd)


def append_us(folder: Path) -> tuple[float, float]:
    spool = Spool(folder, max_bytes=1 << 30)
    positions: list[int] = []
    appended = cpu_us(lambda: positions.append(spool.append(LINE)))
    waiting = iter(positions)
    acknowledged = cpu_us(lambda: spool.acknowledged(next(waiting)))
    spool.close()
    return appended, acknowledged


def stalls_ms(folder: Path, seconds: float = 5.0) -> str:
    """The wall clock of single appends at 2,000 a second, while every 0.2 s a sync is under way in a thread."""
    import gevent

    spool = Spool(folder, max_bytes=1 << 30)
    maintenance = gevent.spawn(spool.run)
    took = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(20):
            started = time.perf_counter()
            spool.append(LINE)
            took.append((time.perf_counter() - started) * 1000)
        gevent.sleep(0.01)
    maintenance.kill()
    spool.close()
    took.sort()
    return ", ".join(
        f"{name} {took[int(len(took) * share)]:.4f}" for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
    )


def reading(folder: Path) -> str:
    dead = Spool(folder, max_bytes=1 << 30)
    for _ in range(100_000):
        dead.append(LINE)
    dead.close()
    heir = Spool(folder, max_bytes=1 << 30)
    started = time.process_time()
    heir.maintain()
    claimed = time.process_time()
    count = sum(1 for _ in heir.pending())
    read = time.process_time()
    heir.close()
    return f"{(claimed - started) / count * 1e6:.2f} us a line to claim, {(read - claimed) / count * 1e6:.2f} us to read"


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        folder = Path(name)
        bare = bare_write_us(folder)
        appended, acknowledged = append_us(folder / "append")
        print(
            f"{len(LINE)} bytes a line, CPU: bare os.write {bare:.2f} us, append {appended:.2f} us, ack {acknowledged:.2f} us"
        )
        print(f"a dead worker's file, CPU: {reading(folder / 'dead')}")
        print(f"wall clock of one append, ms: {stalls_ms(folder / 'stalls')}")


if __name__ == "__main__":
    monkey.patch_all()
    main()
