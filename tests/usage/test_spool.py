"""What was appended to the spool comes back until Redis has it: killed, corrupted, without a disk, bounded, shared."""

import json
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from usage import spool as spool_module
from usage.spool import KEEP_S, LOOK_EVERY_S, ROTATE_S, Spool, SpoolUnavailable

PROJECT = Path(__file__).parents[2]
LARGE = 1 << 30

WRITER = """
import os, sys
from pathlib import Path
from usage.spool import Spool
spool = Spool(Path(sys.argv[1]), max_bytes=1 << 30)
number = 0
while True:
    spool.append(b'{"number":%d,"pad":"%b"}' % (number, b"x" * (number % 500)))
    os.write(1, b"%d\\n" % number)
    number += 1
    if number % 5000 == 0:
        spool.maintain()
"""


class Clock:
    """Unix seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 1_900_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lines_of(spool: Spool) -> list[bytes]:
    return [line for _, line in spool.pending()]


def numbered(count: int, size: int = 300) -> list[bytes]:
    return [f'{{"number":{number}}}'.ljust(size).encode() for number in range(count)]


def tick(spool: Spool, clock: Clock, seconds: float = LOOK_EVERY_S) -> None:
    clock.now_s += seconds
    spool.maintain()


def files(folder: Path, suffix: str) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == suffix)


def python(program: str, *arguments: object) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def killed_writer(folder: Path, *, after_lines: int) -> int:
    """Let a process append lines and kill it. Returns how many appends had returned for sure."""
    writer = python(WRITER, folder)
    assert writer.stdout is not None
    assert writer.stderr is not None
    for _ in range(after_lines):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    rest = writer.stdout.read()
    writer.wait()
    writer.stdout.close()
    writer.stderr.close()
    return after_lines + rest.count(b"\n")


# --- lines and positions


def test_a_line_is_pending_until_it_is_acknowledged(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=LARGE)
    lines = numbered(5)
    positions = [spool.append(line) for line in lines]
    assert list(spool.pending()) == list(zip(positions, lines, strict=True))
    for index in (3, 0, 3):
        spool.acknowledged(positions[index])
    assert lines_of(spool) == [lines[1], lines[2], lines[4]]
    assert spool.state().pending_lines == 3


def test_lines_may_be_acknowledged_and_appended_while_pending_is_read(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=LARGE)
    lines = numbered(100)
    for line in lines:
        spool.append(line)
    seen = []
    for position, line in spool.pending():
        seen.append(line)
        spool.acknowledged(position)
        spool.append(b"another")
    assert seen == lines
    assert lines_of(spool) == [b"another"] * 100


def test_lines_on_their_way_are_left_out(tmp_path: Path, clock: Clock) -> None:
    spool = Spool(tmp_path, max_bytes=LARGE, clock=clock)
    empty = spool.position
    spool.append(b"old")
    before = spool.position
    spool.append(b"young")
    assert [line for _, line in spool.pending(before=empty)] == []
    assert [line for _, line in spool.pending(before=before)] == [b"old"]
    tick(spool, clock, ROTATE_S)
    before = spool.position
    spool.append(b"in the next file")
    assert [line for _, line in spool.pending(before=before)] == [b"old", b"young"]


def test_a_stranger_position_changes_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=LARGE)
    spool.append(b"line")
    for position in (-1, 10**12, spool.position):
        spool.acknowledged(position)
    assert lines_of(spool) == [b"line"]


# --- kill -9


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_writer_loses_nothing_it_appended(tmp_path: Path, seed: int) -> None:
    appended = killed_writer(tmp_path, after_lines=random.Random(seed).randrange(1, 30_000))
    spool = Spool(tmp_path, max_bytes=LARGE)
    spool.maintain()
    numbers = [json.loads(line)["number"] for line in lines_of(spool)]
    assert numbers[:appended] == list(range(appended))
    assert len(numbers) <= appended + 1  # one may have been written and not yet told


def test_the_files_of_a_living_worker_are_its_own(tmp_path: Path) -> None:
    living, other = Spool(tmp_path, max_bytes=LARGE), Spool(tmp_path, max_bytes=LARGE)
    living.append(b"mine")
    other.maintain()
    assert lines_of(other) == []
    assert lines_of(living) == [b"mine"]


def test_two_readers_claim_a_dead_workers_lines_once(tmp_path: Path) -> None:
    appended = killed_writer(tmp_path, after_lines=30_000)
    claim = """
import sys
from pathlib import Path
from usage.spool import Spool
spool = Spool(Path(sys.argv[1]), max_bytes=1 << 30)
sys.stdin.readline()
spool.maintain()
print("claimed", *[position for position, line in spool.pending()], flush=True)
sys.stdin.readline()
"""
    command = [sys.executable, "-c", claim, str(tmp_path)]
    readers = [
        subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.write("go\n")
        reader.stdin.flush()
    counts = []
    for reader in readers:
        assert reader.stdout is not None
        told = next(line for line in reader.stdout if line.startswith("claimed"))  # a torn last record is logged before
        counts.append(len(told.split()) - 1)
    for reader in readers:
        reader.communicate("end\n", timeout=60)
    assert appended <= sum(counts) <= appended + 1


def test_what_a_dead_claimer_claimed_is_claimed_again(tmp_path: Path, clock: Clock) -> None:
    first, second = (Spool(tmp_path, max_bytes=LARGE, clock=clock) for _ in range(2))
    first.append(b"line")
    first.close()
    second.maintain()
    assert lines_of(second) == [b"line"]
    second.close()
    third = Spool(tmp_path, max_bytes=LARGE, clock=clock)
    third.maintain()
    ((position, line),) = third.pending(before=third.position)
    assert line == b"line"
    third.acknowledged(position)
    assert lines_of(third) == []


def test_a_worker_that_ends_in_order_leaves_nothing_to_send(tmp_path: Path) -> None:
    ended, next_one = Spool(tmp_path, max_bytes=LARGE), Spool(tmp_path, max_bytes=LARGE)
    for line in numbered(10):
        ended.acknowledged(ended.append(line))
    ended.close()
    next_one.maintain()
    assert lines_of(next_one) == []
    assert next_one.state().files == 1  # kept, in case Redis forgets
    assert ended.append(b"too late") < 0


# --- what Redis forgot


def test_lines_confirmed_since_redis_was_lost_are_pending_again(tmp_path: Path, clock: Clock) -> None:
    spool = Spool(tmp_path, max_bytes=LARGE, clock=clock)
    spool.acknowledged(spool.append(b"long safe"))
    tick(spool, clock, ROTATE_S)
    clock.now_s += 100
    lost_s = clock.now_s
    positions = [spool.append(line) for line in (b"first", b"second")]
    for position in positions:
        spool.acknowledged(position)
    assert spool.doubt(since_s=lost_s) == 2
    assert lines_of(spool) == [b"first", b"second"]
    spool.acknowledged(positions[0])
    assert lines_of(spool) == [b"second"]
    assert spool.doubt(since_s=0) == 3


def test_lines_of_kept_files_come_back_too_even_a_dead_workers(tmp_path: Path, clock: Clock) -> None:
    dead, spool = (Spool(tmp_path, max_bytes=LARGE, clock=clock) for _ in range(2))
    dead.acknowledged(dead.append(b"of the dead"))
    dead.close()
    spool.acknowledged(spool.append(b"of the living"))
    tick(spool, clock, ROTATE_S)
    assert len(files(tmp_path, ".kept")) == 2
    assert spool.doubt(since_s=clock.now_s - ROTATE_S - 1) == 2
    assert sorted(lines_of(spool)) == [b"of the dead", b"of the living"]
    assert not files(tmp_path, ".kept")
    spool.close()
    heir = Spool(tmp_path, max_bytes=LARGE, clock=clock)
    heir.maintain()
    assert sorted(lines_of(heir)) == [b"of the dead", b"of the living"]


def test_confirmed_files_go_after_ten_minutes_and_pending_ones_stay(tmp_path: Path, clock: Clock) -> None:
    spool = Spool(tmp_path, max_bytes=LARGE, clock=clock)
    spool.append(b"never confirmed")
    tick(spool, clock, ROTATE_S)
    position = spool.append(b"confirmed")
    tick(spool, clock, ROTATE_S)
    spool.acknowledged(position)
    tick(spool, clock, KEEP_S - 1)
    assert len(files(tmp_path, ".kept")) == 1
    tick(spool, clock)
    assert not files(tmp_path, ".kept")
    tick(spool, clock, 10 * KEEP_S)
    assert lines_of(spool) == [b"never confirmed"]
    assert spool.state().files == 1


# --- size


def test_files_rotate_by_size_and_by_time(tmp_path: Path, clock: Clock) -> None:
    spool = Spool(tmp_path, max_bytes=8 * 1000, clock=clock)
    lines = numbered(8)
    for line in lines:
        spool.append(line)
    assert [len(path.read_bytes().splitlines()) for path in files(tmp_path, ".log")] == [3, 3, 2]
    tick(spool, clock, ROTATE_S)
    spool.append(b"later")
    assert len(files(tmp_path, ".log")) == 4
    assert lines_of(spool) == [*lines, b"later"]
    for _ in range(3):
        tick(spool, clock, ROTATE_S)
    assert len(files(tmp_path, ".log")) == 4, "no file is opened for nothing"


def test_full_of_confirmed_lines_the_oldest_files_go(tmp_path: Path, clock: Clock) -> None:
    spool = Spool(tmp_path, max_bytes=40_000, clock=clock)
    for line in numbered(10_000):
        spool.acknowledged(spool.append(line))
    state = spool.state()
    assert 30_000 < state.bytes <= 40_000
    assert sum(path.stat().st_size for path in files(tmp_path, ".log") + files(tmp_path, ".kept")) == state.bytes
    assert (state.refused_lines, state.dropped_lines, state.pending_lines) == (0, 0, 0)


def test_full_of_pending_lines_it_counts_and_keeps_the_newest_in_memory(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "MEMORY_MAX_LINES", 50)
    spool = Spool(tmp_path, max_bytes=40_000, clock=clock)
    lines = numbered(300)
    positions = [spool.append(line) for line in lines]
    state = spool.state()
    on_disk = sum(position >= 0 for position in positions)
    assert state.bytes <= 40_000
    assert 100 < on_disk < 130
    assert state.refused_lines == 300 - on_disk
    assert state.memory_lines == 50
    assert state.dropped_lines == 250 - on_disk
    assert sorted(lines_of(spool)) == sorted(lines[:on_disk] + lines[250:])
    for position, _ in list(spool.pending()):
        if position >= 0:
            spool.acknowledged(position)
    tick(spool, clock)
    assert spool.state().memory_lines == 0, "there is room on the disk again"
    assert lines_of(spool) == lines[250:]


def test_that_it_is_full_is_told_once_until_it_has_room_again(tmp_path: Path, clock: Clock) -> None:
    with capture_logs() as logs:
        spool = Spool(tmp_path, max_bytes=40_000, clock=clock)
        positions = [spool.append(line) for line in numbered(300)]
        assert logs == [{"event": "spool_full", "log_level": "error", "max_bytes": 40_000}]
        for position in positions:
            spool.acknowledged(position)
        tick(spool, clock)
        for line in numbered(300):
            spool.append(line)
        assert [log["event"] for log in logs] == ["spool_full"] * 2


def test_what_is_lost_is_told(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "MEMORY_MAX_LINES", 50)
    spool = Spool(tmp_path, max_bytes=40_000, clock=clock)
    on_disk = sum(spool.append(line) >= 0 for line in numbered(300))
    with capture_logs() as logs:
        for _ in range(2):
            tick(spool, clock)
        spool.close()
    assert [(log["event"], log["count"]) for log in logs] == [("spool_lines_lost", 250 - on_disk), ("spool_lines_lost", 50)]


# --- damage


def test_a_damaged_record_is_set_aside_and_the_rest_delivered(tmp_path: Path) -> None:
    dead = Spool(tmp_path, max_bytes=LARGE)
    lines = numbered(10)
    for line in lines:
        dead.append(line)
    dead.close()
    (path,) = files(tmp_path, ".log")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x20
    path.write_bytes(bytes(data) + b"0123abcd torn")
    spool = Spool(tmp_path, max_bytes=LARGE)
    spool.maintain()
    assert lines_of(spool) == lines[:5] + lines[6:]
    assert spool.state().quarantined_records == 2
    assert len((tmp_path / "quarantine").read_bytes()) == 310 + len(b"0123abcd torn")
    for position, _ in spool.pending():
        spool.acknowledged(position)
    assert spool.state().pending_lines == 0


def test_own_records_that_the_disk_changed_are_not_delivered(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=LARGE)
    lines = numbered(4)
    for line in lines:
        spool.append(line)
    (path,) = files(tmp_path, ".log")
    with path.open("r+b") as file:
        file.seek(309)
        file.write(b"x")  # the newline of the first: its line is whole
        file.seek(700)
        file.write(b"xxx")
    assert lines_of(spool) == [lines[0], lines[1], lines[3]]
    assert (spool.state().quarantined_records, spool.state().pending_lines) == (1, 3)


def test_a_file_that_somebody_removed_is_given_up(tmp_path: Path, clock: Clock) -> None:
    spool = Spool(tmp_path, max_bytes=LARGE, clock=clock)
    spool.append(b"gone")
    for path in files(tmp_path, ".log"):
        path.unlink()
    assert lines_of(spool) == []
    assert spool.state().dropped_lines == 1
    spool.append(b"goes on")
    assert lines_of(spool) == [b"goes on"]


# --- a disk that takes nothing


def test_without_a_disk_it_says_so_once_and_lines_wait_in_memory(tmp_path: Path, clock: Clock) -> None:
    blocked = tmp_path / "spool"
    blocked.write_bytes(b"a file where the folder should be")
    spool = Spool(blocked, max_bytes=LARGE, clock=clock)
    with pytest.raises(SpoolUnavailable) as raised:
        spool.append(b"first")
    positions = [raised.value.position, spool.append(b"second")]
    spool.maintain()
    assert list(spool.pending()) == list(zip(positions, (b"first", b"second"), strict=True))
    assert not spool.state().is_writable
    spool.acknowledged(positions[0])
    blocked.unlink()
    tick(spool, clock)
    assert spool.state().is_writable
    assert lines_of(spool) == [b"second"]
    assert spool.state().memory_lines == 0


def test_a_full_disk_stops_no_call_and_loses_no_line(tmp_path: Path) -> None:
    program = """
import json, resource, sys
from pathlib import Path
from usage.spool import Spool, SpoolUnavailable
now = [1e9]
spool = Spool(Path(sys.argv[1]), max_bytes=1 << 30, clock=lambda: now[0])
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
def tick():
    now[0] += 5
    spool.maintain()
raised = 0
def append(line):
    global raised
    try:
        spool.append(line)
    except SpoolUnavailable:
        raised += 1
report = {}
limit(10_000)
for number in range(100):
    append(b"%06d" % number + b"x" * 300)
tick()
report["full"] = [raised, spool.state().memory_lines, spool.state().is_writable]
limit(resource.RLIM_INFINITY)
tick()
for number in range(100, 200):
    append(b"%06d" % number + b"x" * 300)
report["room"] = [raised, spool.state().memory_lines, spool.state().is_writable]
report["lines"] = [int(line[:6]) for _, line in spool.pending()]
report["damaged"] = spool.state().quarantined_records
print(json.dumps(report))
"""
    run = python(program, tmp_path)
    output, errors = run.communicate(timeout=60)
    assert run.returncode == 0, errors.decode()
    report = json.loads(output.splitlines()[-1])
    assert report["full"] == [1, 100 - 10_000 // 316, False]
    assert report["room"] == [1, 0, True]
    assert sorted(report["lines"]) == list(range(200))
    assert report["damaged"] == 0, "the part of a record that was written is cut off again"
    spool = Spool(tmp_path, max_bytes=LARGE)
    spool.maintain()
    assert sorted(int(line[:6]) for line in lines_of(spool)) == list(range(200))
    assert spool.state().quarantined_records == 0


def test_what_was_appended_is_synced_and_no_file_stays_open(tmp_path: Path, clock: Clock) -> None:
    spool = Spool(tmp_path, max_bytes=80_000, clock=clock)
    for line in numbered(200):
        spool.append(line)
    tick(spool, clock)
    active = spool._active
    assert active is not None
    assert active.synced_size == active.size > 0
    assert len(open_files(tmp_path)) == 2  # the lock and the file that is appended to
    spool.close()
    assert open_files(tmp_path) == []


def open_files(folder: Path) -> list[str]:
    links = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return [link for link in links if re.match(re.escape(str(folder)), link)]


def test_the_same_holds_under_gevent() -> None:
    """In a process of its own, as a worker is: patching cannot be undone. There the sync waits in a real thread."""
    patched = "from gevent import monkey; monkey.patch_all(); import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    bare = ["--noconftest", "-p", "no:django", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(PROJECT), "-q"]
    run = subprocess.run(
        [sys.executable, "-c", patched, *bare, "-k", "not gevent and not killed and not readers", str(Path(__file__))],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
