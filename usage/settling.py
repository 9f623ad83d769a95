"""Holding and settling, as a gateway worker does it: Redis at once, the spool always, the leases of live calls renewed.

While Redis is out an ended call waits in the spool, and is sent again when Redis is back; what Redis may have lost by coming
back empty, or a second behind, is sent again too. The ledger inserts once, so that again is harmless.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import orjson
import redis
import structlog

from usage.degraded import LocalLimiter
from usage.events import UsageEvent
from usage.limits import BoundLimit
from usage.quota import Quota
from usage.reservation import LimitState, Progress, Refusal, Reservation
from usage.spool import Spool, SpoolUnavailable
from usage.store import RedisError, StoreUnavailable

RENEW_S: Final = 10.0  # of a lease of 30 s
LOOK_S: Final = 0.5
# What a Redis that syncs its log once a second may have lost when it comes back, and some seconds of doubt about clocks.
BEHIND_S: Final = 10.0
EVERYTHING_S: Final = 900.0  # more than the spool keeps

_log = structlog.get_logger("usage")


class Settling:
    """One a worker process. Any greenlet may call hold, settle; `run` is the body of one of its own."""

    def __init__(self, client: redis.Redis, spool: Spool, local: LocalLimiter) -> None:
        self._client = client
        self._quota = Quota(client)
        self._spool = spool
        self._local = local
        self._live: dict[str, Callable[[], Progress]] = {}
        self._is_out = False  # since a command failed, until Redis answers `run` again: nobody else waits for time-outs
        self._is_stopping = False
        self._renewed_s = time.monotonic()
        self._server: str | None = None  # Redis' own name for its process

    def reserve(  # noqa: PLR0913 - what a call is, each by its name
        self,
        request_id: str,
        tenant_id: str,
        limits: Sequence[BoundLimit],
        *,
        prompt_tokens: int,
        output_tokens: int,
        cost_nano: int,
        time_zone: str,
        meta: bytes,
        serves_on: bool,
    ) -> Reservation | Refusal:
        """As Quota.reserve, now. serves_on: with Redis out, this worker enforces its share of the limits by itself.

        Raises StoreUnavailable: at once while Redis is known to be out.
        """
        now_s = time.time()
        amounts: dict[str, Any] = {
            "prompt_tokens": prompt_tokens,
            "output_tokens": output_tokens,
            "cost_nano": cost_nano,
            "time_zone": time_zone,
            "now_s": now_s,
            "meta": meta,
        }
        try:
            if self._is_out:
                raise StoreUnavailable("Redis does not answer")
            answer = self._quota.reserve(request_id, tenant_id, limits, **amounts)
        except StoreUnavailable:
            self._is_out = self._is_out or not self._answers()
            if not serves_on or not limits:
                raise
            return self._local.reserve(request_id, tenant_id, limits, **amounts)
        if isinstance(answer, Reservation) and limits and serves_on:
            self._local.saw(answer, now_s=now_s)
        return answer

    def state(self, tenant_id: str, limits: Sequence[BoundLimit], *, time_zone: str) -> list[LimitState]:
        """As Quota.state, now. Raises StoreUnavailable at once while Redis is known to be out."""
        if self._is_out:
            raise StoreUnavailable("Redis does not answer")
        return self._quota.state(tenant_id, limits, time_zone=time_zone, now_s=time.time())

    def hold(self, request_id: str, progress: Callable[[], Progress]) -> None:
        """Keep a call's lease alive until it is settled. progress: how far it is, asked every RENEW_S."""
        self._live[request_id] = progress

    def settle(self, reservation: Reservation | None, event: UsageEvent) -> None:
        """Count an ended call and journal its event: now if Redis answers, else as soon as it does. Never raises."""
        self._live.pop(event.request_id, None)
        if reservation is not None:
            self._local.settle(reservation, event, now_s=time.time())
        try:
            position = self._spool.append(orjson.dumps(event.to_dict()))
        except SpoolUnavailable as error:
            position = error.position
        if self._is_out:
            return
        try:
            self._quota.settle(reservation, event, now_s=time.time())
        except StoreUnavailable:
            self._is_out = True
            return
        self._spool.acknowledged(position)

    def run(self) -> None:
        """Renew leases, and send again what Redis has not got, until stop()."""
        mark = self._spool.position
        while not self._is_stopping:
            before, mark = mark, self._spool.position  # what came since the last look is on its way by itself
            time.sleep(LOOK_S)
            self._look(before)

    def stop(self, *, timeout_s: float = 5.0) -> int:
        """The worker ends: send what is pending. Returns how many lines stay on the disk, for the next worker."""
        self._is_stopping = True
        deadline = time.monotonic() + timeout_s
        while self._spool.state().pending_lines and time.monotonic() < deadline:
            if self._answers():
                self._send_again(None)
            else:
                time.sleep(0.1)
        left = self._spool.state().pending_lines
        self._spool.close()
        return left

    def _look(self, before: int) -> None:
        try:
            self._notice_another_server()
            self._is_out = False
            if time.monotonic() - self._renewed_s >= RENEW_S:
                self._renewed_s = time.monotonic()
                self._quota.renew([progress() for progress in list(self._live.values())], now_s=time.time())
            self._send_again(before)
        except (RedisError, StoreUnavailable) as error:
            if not self._is_out:
                _log.warning("quota_store_unreachable", error_class=type(error).__name__)
            self._is_out = True

    def _notice_another_server(self) -> None:
        """A Redis that was restarted may lack its last second, or everything: those lines are pending again."""
        info = self._client.info("server")
        server = str(info["run_id"])
        if self._server is not None and server != self._server:
            is_whole = bool(self._client.exists("sekisho:config:marker"))
            pending = self._spool.doubt(since_s=time.time() - (BEHIND_S if is_whole else EVERYTHING_S))
            _log.warning("quota_store_restarted", pending_lines=pending)
        self._server = server

    def _send_again(self, before: int | None) -> None:
        with suppress(StoreUnavailable):
            for position, line in self._spool.pending(before=before):
                self._quota.settle(None, UsageEvent.from_dict(orjson.loads(line)), now_s=time.time())
                self._spool.acknowledged(position)

    def _answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except RedisError:
            return False
