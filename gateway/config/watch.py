"""Watch: follows the stream of changes and keeps a worker's Directory up to date. The only code that waits for changes."""

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from gateway.config.documents import CHANGES
from usage.store import RedisError, StoreUnavailable, connect

if TYPE_CHECKING:
    from gateway.config.directory import Directory

BLOCK_S: Final = 1.0
# A full batch means that we lag, or that thousands of rows changed: the stream may have been cut behind us
# (documents.CHANGES_KEPT), and to begin anew is cheaper than to take them in one by one.
BATCH: Final = 1000
RETRY_S: Final = 0.2
_log = logging.getLogger(__name__)
_Position = tuple[int, int]  # in the stream: milliseconds, and a number within them


class Watch:
    """run() loops until stop(); it survives Redis going away, being flushed, restored or replaced.

    synced_at: monotonic seconds when the directory was last known to have missed nothing; None: never yet.
    """

    def __init__(self, directory: "Directory", redis_url: str) -> None:
        self._directory = directory
        # A connection of its own, that may wait longer than a blocking read takes.
        self._redis = connect(redis_url, max_connections=1, timeout_s=BLOCK_S + 2, retries=0)
        self._is_stopped = False
        self._is_out = False
        self.synced_at: float | None = None

    def run(self) -> None:
        """Follow the changes, whatever happens: without this, a revoked key would live as long as the worker."""
        while not self._is_stopped:
            try:
                self._follow()
            except (RedisError, StoreUnavailable) as error:
                if not self._is_out:
                    _log.warning("Redis is out, the last known configuration serves on: %s", type(error).__name__)
                self._is_out = True
                time.sleep(RETRY_S)
            except Exception:  # noqa: BLE001 - the edge of this greenlet
                _log.exception("The watch of the configuration begins anew.")
                time.sleep(RETRY_S)
        self._redis.close()

    def stop(self) -> None:
        """End run() within BLOCK_S."""
        self._is_stopped = True

    def _follow(self) -> None:
        """Begin anew, then take in change after change; returns when the stream was lost, and this must be done again."""
        position = self._end_of_stream()  # before the resync: what changes during it comes as an event
        is_whole = self._directory.resync()
        while not self._is_stopped:
            if is_whole:
                self._note_synced()
            entries = self._read(position)
            if not entries:
                if not is_whole or self._end_of_stream() < position:
                    return
                continue
            position = entries[-1][0]
            changes = {change for _, change in entries}
            self._directory.refresh(changes)
            if len(entries) >= BATCH or any(kind == "all" for kind, _ in changes):
                is_whole = self._directory.resync()

    def _note_synced(self) -> None:
        if self._is_out:
            _log.warning("Redis is back, the configuration is up to date again.")
        self._is_out = False
        self.synced_at = time.monotonic()

    def _read(self, position: _Position) -> list[tuple[_Position, tuple[str, str]]]:
        """The next changes as (position, (kind, id)); empty when none came within BLOCK_S."""
        reply: Any = self._redis.xread({CHANGES: "{}-{}".format(*position)}, count=BATCH, block=int(BLOCK_S * 1000))
        entries = reply[0][1] if reply else []
        return [(_position(name), (item[b"kind"].decode(), item[b"id"].decode())) for name, item in entries]

    def _end_of_stream(self) -> _Position:
        reply: Any = self._redis.xrevrange(CHANGES, count=1)
        return _position(reply[0][0]) if reply else (0, 0)


def _position(name: bytes) -> _Position:
    milliseconds, _, number = name.partition(b"-")
    return int(milliseconds), int(number)
