"""Holding and settling, as a gateway worker does it: Redis at once, the spool always, the leases of live calls renewed.

While Redis is out an ended call waits in the spool, and is sent again when Redis is back; what Redis may have lost by coming
back empty, or a second behind, is sent again too. The ledger inserts once, so that again is harmless. A Redis that is back
judges no call before every worker has told it what it missed: else the calls of that time would be admitted twice over.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import gevent
import orjson
import redis
import structlog
from uuid_utils.compat import uuid7

from usage.degraded import LocalLimiter
from usage.events import EndedCall, UsageEvent
from usage.lag import journal_lag
from usage.limits import BoundLimit
from usage.quota import DONE, LEASE_S, CountersLost, Quota
from usage.reservation import NO_STATES, LimitState, Progress, Refusal, Reservation
from usage.spool import Spool, SpoolUnavailable
from usage.store import RedisError, StoreUnavailable

if TYPE_CHECKING:
    from usage.line import Line

RENEW_S: Final = 10.0  # less than half of a lease
LOOK_S: Final = 0.5
# What a Redis that syncs its log once a second may have lost when it comes back, and some seconds of doubt about clocks.
BEHIND_S: Final = 10.0
YOUNG_S: Final = 900.0  # a server: files of what it may have lost are kept for less
RETURN_S: Final = 2.0  # after which every worker has seen that Redis is back, and has begun to tell what it missed
RESENDING: Final = "sekisho:spool:resending"  # sorted set: workers that are at it, and until when that is believed
RESENDING_S: Final = 10.0
RESENT_AT_ONCE: Final = 100
EPOCH: Final = "sekisho:spool:epoch"  # another one, or none: Redis has lost everything
OWED_MAX: Final = 20_000  # about 10 MB
ALARMED: Final = "sekisho:journal:alarmed"
ALARM_EVERY_S: Final = 60  # of all workers together

_log = structlog.get_logger("usage")


def is_resending(client: redis.Redis) -> bool:
    """Is a worker telling Redis what that missed or lost? Until then its counters hold too little. Raises RedisError."""
    return bool(client.zcount(RESENDING, time.time(), "+inf"))


class _Telling:
    """An ended call on its way to Redis. What is no plain yes is asked again, by a greenlet that can wait for the answer."""

    __slots__ = ("_position", "_spool", "_tell")

    def __init__(self, spool: Spool, position: int, tell: Callable[[], None]) -> None:
        self._spool = spool
        self._position = position
        self._tell = tell

    def switch(self, reply: object) -> None:
        if reply == DONE:
            self._spool.acknowledged(self._position)
        else:
            self.again()

    def throw(self, _error: Exception) -> None:
        self.again()

    def again(self) -> None:
        gevent.spawn(self._tell)


class Settling:
    """One a worker process. Any greenlet may call hold, settle; `run` is the body of one of its own."""

    def __init__(self, client: redis.Redis, spool: Spool, local: LocalLimiter, line: "Line | None" = None) -> None:
        self._client = client
        self._quota = Quota(client, line)
        self._waits = line is None  # with no loop there is nobody to do it later
        self._spool = spool
        self._local = local
        self._live: dict[str, Callable[[], Progress]] = {}
        self._owed: dict[str, Reservation] = {}  # of ended calls of which Redis has not heard: what they held
        self._is_out = False  # since a command failed, until Redis answers `run` again: nobody else waits for time-outs
        self._is_returning = False  # Redis is back, and is being told what it missed
        self._back_s = 0.0
        self._is_stale = False  # it may have lost calls, or let go of live ones: what it says of limits may be too little
        self._is_stopping = False
        self._renewed_s = time.monotonic()
        self._name = str(uuid7())
        self._server: str | None = None  # Redis' own name for its process
        self._epoch: str | None = None
        self._met_s = 0.0  # Unix seconds: when that server last answered
        self._posted_s = 0.0  # and what had ended by then was in the ledger, when last asked

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
        reaps = not self._is_returning  # else a dead lease may be of a call that ended, and was not told yet
        try:
            if self._is_out or (limits and self._is_returning and (serves_on or self._is_stale)):
                raise StoreUnavailable("Redis does not answer, or does not know of all calls yet")
            answer = self._quota.reserve(request_id, tenant_id, limits, **amounts, reaps=reaps)
        except StoreUnavailable:
            self._is_out = self._is_out or not self._answers()
            if not serves_on or not limits:
                raise
            return self._reserve_here(request_id, tenant_id, limits, amounts)
        if serves_on and limits and isinstance(answer, Reservation):
            self._local.saw(answer, now_s=now_s)
        return answer

    def _reserve_here(
        self, request_id: str, tenant_id: str, limits: Sequence[BoundLimit], amounts: dict[str, Any]
    ) -> Reservation | Refusal:
        """Where Redis is there, it has a say too: other workers may be asking it alone by now."""
        answer = self._local.reserve(request_id, tenant_id, limits, **amounts)
        if isinstance(answer, Refusal) or self._is_out:
            return answer
        with suppress(StoreUnavailable):
            try:
                told = self._quota.reserve(request_id, tenant_id, limits, **amounts, reaps=False)
            except CountersLost:
                self._quota.hold(answer, now_s=amounts["now_s"])
                return answer
            if isinstance(told, Refusal):
                self._local.release(request_id, now_s=amounts["now_s"])
                return told
        return answer

    def state(self, tenant_id: str, limits: Sequence[BoundLimit], *, time_zone: str) -> list[LimitState]:
        """As Quota.state, now. Raises StoreUnavailable at once while Redis is known to be out."""
        if self._is_out:
            raise StoreUnavailable("Redis does not answer")
        return self._quota.state(tenant_id, limits, time_zone=time_zone, now_s=time.time())

    def hold(self, request_id: str, progress: Callable[[], Progress]) -> None:
        """Keep a call's lease alive until it is settled. progress: how far it is, asked every RENEW_S."""
        self._live[request_id] = progress

    def settle(self, reservation: Reservation | None, event: EndedCall) -> None:
        """Count an ended call and journal its event: now if Redis answers, else as soon as it does. Never raises.

        When this returns, the spool on this machine's disk has the event. A call under a limit that may soon refuse waits until
        Redis has it too, so that whoever calls next finds its slot and its tokens free. The others do not wait for that round
        trip: Redis has been sent it, and what their clients ask next comes after it. What is on its way when the worker ends,
        stop() sends again.
        """
        now_s = time.time()
        self._live.pop(event.request_id, None)
        if reservation is not None:
            self._local.settle(reservation, event, now_s=now_s)
        try:
            position = self._spool.append(event.json())
        except SpoolUnavailable as error:
            position = error.position
        if self._is_out:
            self._owe(reservation)
        elif self._waits or (reservation is not None and reservation.limits.refuses and not reservation.has_much_room):
            self._tell_or_owe(reservation, event, position, now_s)
        else:
            telling = _Telling(self._spool, position, partial(self._tell_or_owe, reservation, event, position, now_s))
            if not self._quota.begin_to_settle(reservation, event, telling, now_s=now_s):
                telling.again()

    def _tell_or_owe(self, reservation: Reservation | None, event: EndedCall, position: int, now_s: float) -> None:
        try:
            self._quota.settle(reservation, event, now_s=now_s)
        except CountersLost:  # they are being restored, which takes a moment
            self._owe(reservation)
        except StoreUnavailable:
            self._is_out = True
            self._owe(reservation)
        else:
            self._spool.acknowledged(position)

    def _owe(self, reservation: Reservation | None) -> None:
        """Remember what an ended call held, for when its event is sent again. The oldest are forgotten where there are many."""
        if reservation is not None:
            self._owed[reservation.request_id] = replace(reservation, meta=b"", states=NO_STATES)
            if len(self._owed) > OWED_MAX:
                self._owed.pop(next(iter(self._owed)), None)

    def run(self) -> None:
        """Renew leases, and send again what Redis has not got, until stop()."""
        mark = self._spool.position
        while not self._is_stopping:
            before, mark = mark, self._spool.position  # what came since the last look is on its way by itself
            time.sleep(LOOK_S)
            try:
                self._look(before)
            except Exception as error:  # noqa: BLE001 - the edge of this greenlet: without it every lease would end
                self._is_out = True
                _log.error("quota_look_failed", error_class=type(error).__name__, exc_info=error)

    def stop(self, *, timeout_s: float = 5.0) -> int:
        """The worker ends: send what is pending. Returns how many lines stay on the disk, for the next worker."""
        self._is_stopping = True
        deadline = time.monotonic() + timeout_s
        while (left := self._spool.state().pending_lines) and time.monotonic() < deadline:
            with suppress(RedisError, StoreUnavailable):
                self._send_again(None)
            if left == self._spool.state().pending_lines:
                time.sleep(0.1)
        self._spool.close()
        return left

    def _look(self, before: int) -> None:
        was_out = self._is_out
        try:
            met_s, is_another = self._met_s, self._meet_server()
            if was_out or is_another:
                self._is_returning, self._back_s = True, time.monotonic()
                self._is_stale |= is_another or self._met_s - met_s > LEASE_S - RENEW_S
                self._note_resending()
                self._renew()
            elif time.monotonic() - self._renewed_s >= RENEW_S:
                self._renew()
                self._watch_journal()
            self._is_out = False
            self._send_again(before)
            self._end_return()
        except (RedisError, StoreUnavailable) as error:
            if not was_out:
                _log.warning("quota_store_unreachable", error_class=type(error).__name__)
            self._is_out = True

    def _watch_journal(self) -> None:
        """Say that the ledger is behind: with the worker or PostgreSQL out nobody else may be there to see it."""
        lag = journal_lag(self._client, now_s=time.time())
        self._posted_s = time.time() - lag.oldest_s
        if lag.is_late and self._client.set(ALARMED, 1, nx=True, ex=ALARM_EVERY_S):
            oldest_s, full_in_s = round(lag.oldest_s), round(lag.full_in_s)
            _log.error("journal_not_posted", entries=lag.entries, oldest_s=oldest_s, full_in_s=full_in_s)

    def _renew(self) -> None:
        """Of all live calls at once. Those that were admitted here, while Redis was out, it does not know at all."""
        self._renewed_s, now_s = time.monotonic(), time.time()
        live = [progress() for progress in list(self._live.values())]
        for call in live if self._is_returning else ():
            if self._local.holds(call.reservation.request_id):
                self._quota.hold(call.reservation, now_s=now_s)
        self._quota.renew(live, now_s=now_s)

    def _meet_server(self) -> bool:
        """Is it another server than before, or one restarted? It may lack its last second, or everything: those lines are
        pending again. To a new worker each young server is another: files of dead workers may hold what it lost.
        """
        info = self._client.info("server")
        new_epoch = str(uuid7())
        epoch = self._client.set(EPOCH, new_epoch, nx=True, get=True)
        found, now_s = epoch.decode() if isinstance(epoch, bytes) else new_epoch, time.time()
        is_first = self._server is None
        is_another = info["run_id"] != self._server and not (is_first and info["uptime_in_seconds"] > YOUNG_S)
        if is_another:
            has_all = found == self._epoch
            pending = self._spool.doubt(since_s=(self._met_s if has_all else self._posted_s) - BEHIND_S)
            if pending or not is_first:
                _log.warning("quota_store_restarted", pending_lines=pending)
        self._server, self._epoch, self._met_s = str(info["run_id"]), found, now_s
        return is_another and not is_first

    def _send_again(self, before: int | None) -> None:
        lines = self._spool.pending(before=before)
        while batch := list(islice(lines, RESENT_AT_ONCE)):
            if self._is_returning:
                self._note_resending()
            events = [UsageEvent.from_dict(orjson.loads(line)) for _, line in batch]
            ended = [(self._owed.get(event.request_id), event) for event in events]
            done = self._quota.settle_again(ended, now_s=time.time())
            for (position, _), event, is_done in zip(batch, events, done, strict=True):
                if is_done:
                    self._owed.pop(event.request_id, None)
                    self._spool.acknowledged(position)

    def _end_return(self) -> None:
        """Let Redis judge calls again once each worker has had the time to begin telling, and none is still at it."""
        if self._is_returning:
            self._client.zrem(RESENDING, self._name)
            if time.monotonic() - self._back_s >= RETURN_S and not is_resending(self._client):
                self._is_returning = self._is_stale = False

    def _note_resending(self) -> None:
        self._client.zadd(RESENDING, {self._name: time.time() + RESENDING_S})

    def _answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except RedisError:
            return False
