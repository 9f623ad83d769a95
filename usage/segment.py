"""One file of the spool: records that carry a checksum each, and which of them are confirmed.

A record is `crc32 of the line, 8 hex digits; a space; the line; a newline`. Lines hold no newline (orjson writes none).
Written by usage/spool.py alone.
"""

import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from zlib import crc32

HEADER_BYTES: Final = 9
RECORD_MAX_BYTES: Final = 64 * 1024  # how far a lost newline is searched for: an event has at most some 20 kB
# A position: the number of the segment, and the index of the record in it. A segment of 4 MiB has 420,000 at most.
INDEX_BITS: Final = 24
INDEX_MASK: Final = (1 << INDEX_BITS) - 1
_HEADER: Final = re.compile(rb"[0-9a-f]{8} ")


def line_of(record: bytes) -> bytes | None:
    """The line in a record, or None when a byte of it is not what was written. The newline itself may be."""
    line = record[HEADER_BYTES:-1]
    return line if len(record) > HEADER_BYTES and record.startswith(b"%08x " % crc32(line)) else None


def cut(data: bytes) -> Iterator[tuple[int, bool]]:
    """Cut a file into stretches: (end, is a whole record). Damage costs the record it hit and no other."""
    at = 0
    while at < len(data):
        end = data.find(b"\n", at) + 1 or len(data)
        is_whole = line_of(data[at:end]) is not None
        if not is_whole:
            for header in _HEADER.finditer(data, at + HEADER_BYTES, min(end, at + RECORD_MAX_BYTES)):
                if line_of(data[at : header.start()]) is not None:  # its newline was hit, and joined it to the next
                    end, is_whole = header.start(), True
                    break
        yield end, is_whole
        at = end


class Segment:
    """Which records a file holds and which of them are confirmed: five bytes of memory each while that is open.

    fd: only while it is appended to, up to `limit_bytes`. is_kept: all were confirmed; the file waits out the time in
    which Redis may be found to have forgotten them, and what was known of each record is let go.
    """

    __slots__ = (
        "confirmed", "confirmed_count", "confirmed_s", "ends", "fd", "first_position", "is_kept", "limit_bytes",
        "number", "opened_s", "path", "size", "synced_size", "was_claimed",
    )  # fmt: skip

    def __init__(self, path: Path, number: int, *, now_s: float, fd: int = -1) -> None:
        self.path = path
        self.number = number
        self.fd = fd
        self.opened_s = now_s
        self.confirmed_s = now_s  # when the last one was
        self.first_position = number << INDEX_BITS
        self.size = 0
        self.limit_bytes = 0
        self.synced_size = 0
        self.ends = array("I")
        self.confirmed = bytearray()
        self.confirmed_count = 0
        self.is_kept = False
        self.was_claimed = False

    @classmethod
    def claimed(cls, path: Path, number: int, *, is_kept: bool, now_s: float) -> "Segment":
        """A file that another process left behind. Raises OSError."""
        segment = cls(path, number, now_s=now_s)
        segment.was_claimed = True
        stat = path.stat()
        segment.size = stat.st_size
        segment.confirmed_s = stat.st_mtime
        segment.is_kept = is_kept
        return segment

    def pending_count(self) -> int:
        return len(self.ends) - self.confirmed_count

    def confirm(self, index: int, now_s: float) -> None:
        """A kept file, which knows no record any more, needs none."""
        if index < len(self.confirmed) and not self.confirmed[index]:
            self.confirmed[index] = 1
            self.confirmed_count += 1
            self.confirmed_s = now_s

    def first_unconfirmed(self) -> int:
        """Its index; of no record where there is none."""
        index = self.confirmed.find(0)
        return index if index >= 0 else len(self.ends)

    def keep(self) -> None:
        self.is_kept = True
        self.ends, self.confirmed, self.confirmed_count = array("I"), bytearray(), 0

    def reopen(self) -> list[bytes]:
        """Take every record for unconfirmed again; returns the damaged stretches, which count as confirmed.

        Reads the file (8 ms for 4 MiB) only where nothing of it is in memory. Raises OSError.
        """
        damaged = []
        if self.is_kept or (self.size and not self.ends):
            data = self.path.read_bytes()
            self.is_kept = False
            self.confirmed = bytearray()
            start = 0
            for end, is_whole in cut(data):
                self.ends.append(end)
                self.confirmed.append(not is_whole)
                if not is_whole:
                    damaged.append(data[start:end])
                start = end
        else:
            self.confirmed = bytearray(len(self.ends))
        self.confirmed_count = sum(self.confirmed)
        return damaged

    def unconfirmed(self) -> Iterator[tuple[int, bytes]]:
        """(index, record) of each, as on the disk when this is first asked. Raises OSError."""
        if not self.pending_count():
            return
        count = len(self.ends)
        data = self.path.read_bytes()
        index = self.confirmed.find(0)
        while 0 <= index < count:
            yield index, data[self.ends[index - 1] if index else 0 : self.ends[index]]
            index = self.confirmed.find(0, index + 1)
