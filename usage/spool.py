"""The spool: every final event also on this machine's disk, until Redis surely has it. One Spool a worker process.

What was appended survives `kill -9` at once (it is in the page cache) and loss of power after the next sync. It knows
lines of bytes only: no event, no Redis. For greenlets of one process, not for several OS threads.
"""

import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from pathlib import Path
from threading import Lock
from typing import Final
from zlib import crc32

import gevent
import structlog
from gevent.monkey import is_module_patched

from usage.ownership import Ownership, left_behind
from usage.segment import HEADER_BYTES, INDEX_BITS, INDEX_MASK, Segment, line_of

SEGMENT_MAX_BYTES: Final = 4 * 1024 * 1024
ROTATE_S: Final = 60.0
KEEP_S: Final = 600.0  # Redis may come back empty or a second behind: what it confirmed may be asked for again
LOOK_EVERY_S: Final = 2.0  # for files of dead workers, and whether a full disk has room again
MEMORY_MAX_LINES: Final = 20_000  # about 10 MB: what waits while the disk takes nothing
QUARANTINE_MAX_BYTES: Final = 1024 * 1024
PROBE: Final = bytes(64 * 1024)

_write: Final = os.write  # looked up once: append is on the way of every call
_log = structlog.get_logger("usage")


class SpoolUnavailable(Exception):
    """The disk took no line. The line is in memory, at `position`; further ones go there without this being raised."""

    def __init__(self, position: int) -> None:
        super().__init__("the spool cannot be written; lines wait in memory")
        self.position = position


@dataclass(frozen=True, slots=True)
class SpoolState:
    """For metrics and alarms. refused: found the spool full of unconfirmed lines and went to memory. dropped: lost."""

    files: int
    bytes: int
    pending_lines: int  # in files and in memory
    memory_lines: int
    refused_lines: int
    dropped_lines: int
    quarantined_records: int
    is_writable: bool


class Spool:
    """Lines appended, until they are acknowledged and for KEEP_S after.

    max_bytes: of all files of this worker, those it claimed from dead ones included. sync_every_s: how much a loss of
    power may take. A position names a line; it means nothing beyond this object, and 0 and above is on the disk.
    Nothing here raises for a broken disk but `append`, once each time it breaks: calls must go on.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        sync_every_s: float = 0.2,
        keep_s: float = KEEP_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = min(SEGMENT_MAX_BYTES, max_bytes // 8)
        self._sync_every_s = sync_every_s
        self._keep_s = keep_s
        self._clock = clock
        self._owner: Ownership | None = None
        self._numbers = 0
        self._segments: dict[int, Segment] = {}
        self._active: Segment | None = None
        self._memory: OrderedDict[int, bytes] = OrderedDict()
        self._memory_count = 0
        self._is_out = False
        self._is_full = False
        self._retired: deque[int] = deque()
        self._syncing = Lock()
        self._looked_s = 0.0
        self._is_closed = False
        self._refused = self._dropped = self._quarantined = 0
        self._dropped_told = 0

    def append(self, line: bytes) -> int:
        """Write one line, which holds no newline; returns its position for `acknowledged`. One write, no sync.

        Raises SpoolUnavailable, which bears the position too, when the disk has just stopped taking lines.
        """
        record = b"%08x %b\n" % (crc32(line), line)
        size = len(record)
        segment = self._active
        try:
            if segment is None or segment.size + size > segment.limit_bytes:
                segment = self._next(size)
                if segment is None:
                    return self._remember(line)
            if _write(segment.fd, record) != size:
                raise OSError(ENOSPC, "short write")
        except OSError as error:
            self._give_up(error)
            raise SpoolUnavailable(self._remember(line)) from error
        ends = segment.ends
        segment.size = end = segment.size + size
        ends.append(end)
        segment.confirmed.append(0)
        return segment.first_position + len(ends) - 1

    def acknowledged(self, position: int) -> None:
        """Redis has this line. In any order; again is harmless."""
        if position < 0:
            self._memory.pop(position, None)
            return
        segment = self._segments.get(position >> INDEX_BITS)
        if segment is not None:
            segment.confirm(position & INDEX_MASK, self._clock())

    @property
    def position(self) -> int:
        """That of the next line, unless it begins a file. For `pending(before=)`."""
        if self._active is None:
            return (self._numbers + 1) << INDEX_BITS
        return self._active.first_position + len(self._active.ends)

    def pending(self, *, before: int | None = None) -> Iterator[tuple[int, bytes]]:
        """(position, line) of what is not acknowledged, of this worker and of dead ones it has claimed from.

        before: a `position` from a while ago, so that lines on their way to Redis right now are left out. Lines may be
        appended and acknowledged while this is read. Damaged records are quarantined, not delivered.
        """
        yield from list(self._memory.items())
        for segment in list(self._segments.values()):
            first = segment.first_position
            end = before if before is not None and not segment.was_claimed else first + INDEX_MASK
            if not segment.pending_count() or first + segment.first_unconfirmed() >= end:
                continue  # nothing but what is on its way: the file, of megabytes, need not be read for that
            try:
                for index, record in segment.unconfirmed():
                    if first + index >= end:
                        break
                    line = line_of(record)
                    if line is None:
                        self._quarantine([record])
                        segment.confirm(index, self._clock())
                    else:
                        yield first + index, line
            except OSError as error:  # somebody else removed the file
                _log.error("spool_file_unreadable", file=segment.path.name, error_class=type(error).__name__)
                self._dropped += segment.pending_count()
                self._forget(segment)

    def doubt(self, *, since_s: float) -> int:
        """Redis may have lost what it confirmed at `since_s` (Unix seconds) or later: that is pending again.

        Whole files, so earlier lines come along. Dead workers' files too. Returns how many lines are pending now.
        """
        self._claim()
        for segment in list(self._segments.values()):
            if segment.confirmed_s >= since_s and segment.number in self._segments:
                self._reopen(segment)
                time.sleep(0)
        return self.state().pending_lines

    def state(self) -> SpoolState:
        return SpoolState(
            files=len(self._segments),
            bytes=self._bytes(),
            pending_lines=len(self._memory) + sum(segment.pending_count() for segment in self._segments.values()),
            memory_lines=len(self._memory),
            refused_lines=self._refused,
            dropped_lines=self._dropped,
            quarantined_records=self._quarantined,
            is_writable=not self._is_out,
        )

    def run(self) -> None:
        """Maintain, until close(): the body of a greenlet."""
        while not self._is_closed:
            time.sleep(self._sync_every_s)
            try:
                self.maintain()
            except Exception as error:  # noqa: BLE001 - the edge of this greenlet: without it nothing would be synced again
                _log.error("spool_maintenance_failed", error_class=type(error).__name__, exc_info=error)

    def maintain(self) -> None:
        """Sync, rotate, let go of what is old, take what dead workers left, try a broken disk again."""
        now_s = self._clock()
        self._sync()
        if self._active is not None and now_s - self._active.opened_s >= ROTATE_S:
            self._retire()
        self._keep_confirmed()
        for segment in [s for s in self._segments.values() if s.is_kept and now_s - s.confirmed_s >= self._keep_s]:
            self._delete(segment)
        if abs(now_s - self._looked_s) >= LOOK_EVERY_S and not self._is_closed:
            self._looked_s = now_s
            self._recover()
            self._claim()
            self._tell_dropped()

    def close(self) -> None:
        """The worker ends: sync, and leave what is pending to be claimed. What is appended after goes to memory alone."""
        self._recover()
        self._dropped += len(self._memory)
        self._memory.clear()
        self._tell_dropped()
        self._is_closed = True
        self._retire()
        self._sync()
        self._keep_confirmed()
        if self._owner is not None:
            self._owner.end()
            self._owner = None

    def _next(self, size: int) -> Segment | None:
        """The segment that takes `size` bytes; None when there is no room or no disk. Raises OSError."""
        if self._is_out or self._is_closed:
            return None
        if not self._make_room(size):
            self._refused += 1
            if not self._is_full:
                _log.error("spool_full", max_bytes=self._max_bytes)
            self._is_full = True
            return None
        if self._active is None or self._active.size + size > self._segment_bytes:
            self._retire()
            self._active = self._open()
        self._limit_active()
        return self._active

    def _make_room(self, size: int) -> bool:
        """Is there room for `size` bytes, once kept files are deleted, the longest confirmed first?"""
        if self._bytes() + size <= self._max_bytes:
            return True
        self._keep_confirmed()
        for segment in sorted((s for s in self._segments.values() if s.is_kept), key=lambda s: s.confirmed_s):
            self._delete(segment)
            if self._bytes() + size <= self._max_bytes:
                return True
        return False

    def _limit_active(self) -> None:
        """Set how far the active file may grow before _next is asked."""
        if self._active is not None:
            free = max(0, self._max_bytes - self._bytes())
            self._active.limit_bytes = min(self._segment_bytes, self._active.size + free)

    def _bytes(self) -> int:
        return sum(segment.size for segment in self._segments.values())

    def _open(self) -> Segment:
        path = self._own_path(".log")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        segment = self._segments[self._numbers] = Segment(path, self._numbers, now_s=self._clock(), fd=fd)
        return segment

    def _own_path(self, suffix: str) -> Path:
        """Of the next number. The first one takes the name, so that building a Spool needs no disk. Raises OSError."""
        if self._owner is None:
            self._owner = Ownership(self._folder)
        self._numbers += 1
        return self._folder / f"{self._owner.name}.{self._numbers:06d}{suffix}"

    def _retire(self) -> None:
        """End the active file. It is synced and closed by the next sync, which may be under way in a thread."""
        segment, self._active = self._active, None
        if segment is None:
            return
        self._retired.append(segment.fd)
        segment.fd = -1
        if not segment.size:
            self._delete(segment)

    def _sync(self) -> None:
        with self._syncing:
            try:
                while self._retired:
                    fd = self._retired.popleft()
                    try:
                        _off_the_loop(os.fdatasync, fd)
                    finally:
                        os.close(fd)
                segment = self._active
                if segment is not None and segment.synced_size != segment.size:
                    size = segment.size
                    _off_the_loop(os.fdatasync, segment.fd)
                    segment.synced_size = size
            except OSError as error:
                self._give_up(error)

    def _keep_confirmed(self) -> None:
        """Mark the files of which every line is confirmed: those who claim them need not send them."""
        for segment in self._segments.values():
            if segment is self._active or segment.is_kept or segment.pending_count():
                continue
            segment.keep()
            self._rename(segment, ".kept")
            with suppress(OSError):
                os.utime(segment.path, (segment.confirmed_s, segment.confirmed_s))

    def _reopen(self, segment: Segment) -> None:
        was_kept = segment.is_kept
        try:
            self._quarantine(segment.reopen())
        except OSError as error:
            _log.error("spool_file_unreadable", file=segment.path.name, error_class=type(error).__name__)
            self._forget(segment)
            return
        if was_kept:
            self._rename(segment, ".log")

    def _rename(self, segment: Segment, suffix: str) -> None:
        """On a disk that takes no change the old name stays, and costs no more than sending lines again."""
        path = segment.path.with_suffix(suffix)
        with suppress(OSError):
            segment.path.rename(path)
            segment.path = path

    def _delete(self, segment: Segment) -> None:
        with suppress(OSError):
            segment.path.unlink()
        self._forget(segment)

    def _forget(self, segment: Segment) -> None:
        self._segments.pop(segment.number, None)
        if segment is self._active:
            self._retire()

    def _claim(self) -> None:
        """Take over the files of workers that are gone."""
        for path in left_behind(self._folder, besides=self._owner.name if self._owner else ""):
            if path.suffix in {".log", ".kept"}:
                with suppress(OSError):  # another was first
                    self._take(path)

    def _take(self, path: Path) -> None:
        mine = self._own_path(path.suffix)
        path.rename(mine)
        segment = Segment.claimed(mine, self._numbers, is_kept=path.suffix == ".kept", now_s=self._clock())
        self._segments[segment.number] = segment
        self._limit_active()
        if not segment.size:
            self._delete(segment)
        elif not segment.is_kept:
            self._reopen(segment)
            time.sleep(0)  # a file is some milliseconds of reading: others may run between

    def _quarantine(self, records: list[bytes]) -> None:
        """Set damaged records aside for a person to look at; the first megabyte of them."""
        if not records:
            return
        self._quarantined += len(records)
        _log.error("spool_records_damaged", count=len(records))
        with suppress(OSError), (self._folder / "quarantine").open("ab") as file:
            for record in records:
                if file.tell() + len(record) <= QUARANTINE_MAX_BYTES:
                    file.write(record)

    def _remember(self, line: bytes) -> int:
        if len(self._memory) >= MEMORY_MAX_LINES:
            self._memory.popitem(last=False)
            self._dropped += 1
        self._memory_count += 1
        self._memory[-self._memory_count] = line
        return -self._memory_count

    def _tell_dropped(self) -> None:
        """These calls are used and on nobody's books, unless Redis has got them at their end."""
        if self._dropped > self._dropped_told:
            _log.error("spool_lines_lost", count=self._dropped - self._dropped_told)
            self._dropped_told = self._dropped

    def _give_up(self, error: OSError) -> None:
        """Lines go to memory from here on. A record of which only a part was written is cut off again."""
        if not self._is_out:
            _log.error("spool_unavailable", error_class=type(error).__name__, errno=error.errno)
        self._is_out = True
        if self._active is not None:
            with suppress(OSError):
                os.ftruncate(self._active.fd, self._active.size)
            self._retire()

    def _recover(self) -> None:
        """Bring to the disk what waits in memory, if there is room for it again."""
        try:
            if self._is_out:
                self._probe()
            for _ in range(len(self._memory)):
                if not self._make_room(len(next(iter(self._memory.values()))) + HEADER_BYTES + 1):
                    return
                self.append(self._memory.popitem(last=False)[1])
        except SpoolUnavailable:
            return
        except OSError as error:
            kept = [segment for segment in self._segments.values() if segment.is_kept]
            if kept and error.errno in (ENOSPC, EDQUOT):  # one at a time: a line that nobody has is worth more
                self._delete(min(kept, key=lambda segment: segment.confirmed_s))
            return
        self._is_full = False

    def _probe(self) -> None:
        """Is there a disk, and room on it? Opens the next file if so. Raises OSError if not."""
        segment = self._active = self._open()
        try:
            if os.write(segment.fd, PROBE) != len(PROBE):
                raise OSError(ENOSPC, "short write")
            os.ftruncate(segment.fd, 0)
        except OSError:
            self._retire()
            raise
        self._is_out = False
        _log.info("spool_writable_again")


def _off_the_loop(call: Callable[[int], None], fd: int) -> None:
    """Where gevent's loop serves the calls, a slow disk must hold none of them: a real thread waits for it."""
    if is_module_patched("threading"):
        gevent.get_hub().threadpool.apply(call, (fd,))
    else:
        call(fd)
