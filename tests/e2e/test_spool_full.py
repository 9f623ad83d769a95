"""The spool's disk full while calls go on: they are answered, what Redis gets is not lost, and what is lost is told.

The disk is a tmpfs of 256 kB that only the gateway of the test sees.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from tests import processes
from tests.e2e import small_disk
from tests.e2e.conftest import Stand
from tests.e2e.test_redis_out import BACK_S, MANY, Served, Server, is_told, posted, served_on
from usage.store import connect

pytestmark = pytest.mark.xdist_group("redis_out")

WORKERS = 2
DISK_BYTES = 256 * 1024
FILLED_BYTES = 200 * 1024  # what is left is less than the 64 kB for which the spool waits
MAX_BYTES = 1024 * 1024  # the least that may be set
TAGS = {f"tag-{number}": "x" * 512 for number in range(16)}  # a line of the spool is 9 kB then
BODY = {"max_tokens": 1, "metadata": TAGS}


class Disk(small_disk.Disk):
    def fill(self, size: int | None = FILLED_BYTES) -> None:
        super().fill(size)

    def lines(self) -> int:
        """Ended calls on the disk."""
        return sum(path.read_bytes().count(b"\n") for path in self.inside.iterdir() if path.suffix in {".log", ".kept"})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "server")
    yield running
    running.stop()


@pytest.fixture
def valkey(server: Server, settings: Any) -> Iterator[redis.Redis]:
    settings.REDIS_URL = server.url
    with connect(server.url) as client:
        yield client


@pytest.fixture
def gateway_process(server: Server, tmp_path: Path, environment: dict[str, str]) -> Iterator[processes.Gateway]:
    with processes.gateway(tmp_path / "gateway", workers=WORKERS, redis_url=server.url, **environment) as running:
        yield running


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> dict[str, str]:
    """For tests that ask for the small disk, processes are started in a namespace of their own that has it mounted."""
    if "disk" not in request.fixturenames:
        return {"SEKISHO_SPOOL_MAX_BYTES": str(MAX_BYTES)}
    folder = tmp_path / "disk"
    small_disk.mount(folder, DISK_BYTES, tmp_path=tmp_path, monkeypatch=monkeypatch)
    return {"SEKISHO_SPOOL_FOLDER": str(folder)}


@pytest.fixture
def disk(stand: Stand, environment: dict[str, str]) -> Disk:
    return Disk(Path(environment["SEKISHO_SPOOL_FOLDER"]), stand.gateway)


@dataclass
class Calls:
    """Calls of a tenant that is served on without Redis. ids: of those that were answered as they should be."""

    stand: Stand
    tenant: Served
    ids: list[str] = field(default_factory=list)

    def make(self, count: int = 8, *, secret: str | None = None, status: int = 200) -> None:
        """Eight at once."""
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda _: self.stand.post(BODY, secret=secret or self.tenant.secret), range(count))
            for answer in answers:
                assert answer.status_code == status
                self.ids.append(answer.headers["x-request-id"])

    def make_until(self, alarm: str, **options: Any) -> None:
        """Until each worker has told of it."""

        def have_told() -> bool:
            for _ in self.stand.gateway.each_worker():
                self.make(**options)
            return told(self.stand, alarm) >= WORKERS

        self.stand.until(have_told, f"nobody tells {alarm}", BACK_S)

    def are_posted(self) -> bool:
        """Each of them, and each once."""
        rows = posted(self.tenant.tenant)
        return set(self.ids) <= set(rows) and all(len(parts) == 1 for parts in rows.values())


@pytest.fixture
def calls(stand: Stand) -> Calls:
    return Calls(stand, served_on(stand, tokens_per_hour=MANY))


def told(stand: Stand, event: str) -> int:
    """How often the log has it."""
    return sum(f'"event":"{event}"' in line for line in stand.gateway.lines())


def test_with_redis_there_a_full_disk_is_told_once_and_costs_nothing(stand: Stand, disk: Disk, calls: Calls) -> None:
    disk.fill()
    calls.make_until("spool_unavailable")
    calls.make(64)
    stand.until(calls.are_posted, "a call is lost")
    stand.until(lambda: is_told(stand, calls.tenant), "the counters are not the ledger's")
    assert told(stand, "spool_unavailable") == WORKERS
    assert told(stand, "spool_lines_lost") == 0

    before = disk.lines()
    disk.make_room()
    stand.until(lambda: told(stand, "spool_writable_again") == WORKERS, "the disk is not tried again", BACK_S)
    calls.make(8)
    assert disk.lines() == before + 8
    stand.until(calls.are_posted, "a call is lost")


def test_a_disk_full_of_what_redis_has_makes_room_by_itself(stand: Stand, disk: Disk, calls: Calls) -> None:
    disk.fill(FILLED_BYTES // 2)
    calls.make_until("spool_unavailable")
    stand.until(lambda: told(stand, "spool_writable_again") >= WORKERS, "it stays full", BACK_S)
    stand.until(calls.are_posted, "a call is lost")


def test_without_redis_calls_wait_in_memory_until_it_is_back(stand: Stand, server: Server, disk: Disk, calls: Calls) -> None:
    disk.fill()
    server.kill()
    calls.make_until("spool_unavailable")
    calls.make(64)
    assert disk.lines() < len(calls.ids) - 64
    server.start()
    stand.until(calls.are_posted, "a call is lost", BACK_S)
    stand.until(lambda: is_told(stand, calls.tenant), "Redis is not told what was used", BACK_S)
    assert told(stand, "spool_unavailable") == WORKERS


def test_without_redis_calls_wait_on_the_disk_once_it_has_room(stand: Stand, server: Server, disk: Disk, calls: Calls) -> None:
    disk.fill()
    server.kill()
    calls.make_until("spool_unavailable")
    disk.make_room()
    stand.until(lambda: disk.lines() == len(calls.ids), "they stay in memory", BACK_S)


def test_what_is_lost_with_the_memory_of_a_worker_is_told(stand: Stand, server: Server, disk: Disk, calls: Calls) -> None:
    disk.fill()
    server.kill()
    calls.make_until("spool_unavailable")
    kept = disk.lines()
    stand.gateway.process.terminate()
    stand.gateway.process.wait(60)
    lost = [json.loads(line)["count"] for line in stand.gateway.lines() if '"event":"spool_lines_lost"' in line]
    assert kept + sum(lost) == len(calls.ids)
    assert sum(lost) > 0


def test_a_spool_that_is_full_by_its_own_bound_is_told_and_loses_nothing(
    stand: Stand, server: Server, calls: Calls, tmp_path: Path
) -> None:
    server.kill()
    calls.make_until("spool_full", count=64)
    calls.make(64)
    files = [path for path in (tmp_path / "gateway/spool").iterdir() if path.suffix == ".log"]
    assert sum(path.stat().st_size for path in files) <= WORKERS * MAX_BYTES
    assert told(stand, "spool_full") == WORKERS
    server.start()
    stand.until(calls.are_posted, "a call is lost", BACK_S)
    stand.until(lambda: is_told(stand, calls.tenant), "Redis is not told what was used", BACK_S)
    assert told(stand, "spool_lines_lost") == 0
