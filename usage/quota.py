"""Quota: reserve before a call, settle after it. One atomic script a verb (lua/), one round trip, exact under any race.

The counters live in Redis, all of a tenant in one hash slot (partitions.py); lua/counters.lua tells what happens to them.
Time is passed in: Unix seconds of the caller's clock. Every method raises StoreUnavailable when Redis is out.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
import redis

from usage.events import EndedCall, UsageEvent
from usage.layout import CODES, WIDTHS_MS, Layout, boundless, counted, layout_of
from usage.limits import PERIODIC, QUARTER_MS, Bound, BoundLimit, Limit, day_and_month, period
from usage.partitions import PARTITIONS, alive_key, base, journal_key, leases_key, partition, subject_key
from usage.reservation import (
    NO_STATES,
    Counter,
    LimitState,
    LimitStates,
    Progress,
    Refusal,
    Reservation,
    fits_tokens,
    skeleton,
)
from usage.scripts import Prepared, Run, Script, run, run_all
from usage.store import RedisError, StoreUnavailable

if TYPE_CHECKING:  # it needs gevent's loop, which only the gateway's workers have
    from usage.line import Ear, Line

LEASE_S: Final = 30.0  # as in lua/counters.lua
REAP_BATCH: Final = 100
COUNTING_S: Final = 5.0

# reserve.lua's answer, where it is one number; and the first number of all others.
_LOST: Final = -1
_SETTLED: Final = 2
_REFUSED: Final = 0
_MUCH_ROOM: Final = 2
# Of settle.lua's.
DONE: Final = 1
_NOT_NOW: Final = -1

_RESERVE: Final = Script.of("reserve")
_SETTLE: Final = Script.of("settle")
_RENEW: Final = Script.of("renew")
_REAP: Final = Script.of("reap")
_STATE: Final = Script.of("state", flags="flags=no-writes")
_RESTORE: Final = Script.of("restore")
_MARK_ALIVE: Final = Script.of("mark_alive")


class CountersLost(StoreUnavailable):
    """Redis was emptied and the counters are not restored yet: whoever admits a call now may overrun a limit."""


class Quota:
    """One a worker; any number of them share the counters."""

    def __init__(self, client: redis.Redis, line: "Line | None" = None) -> None:
        """line: for what every call asks; without one the client is asked that too."""
        self._client = client
        self._line = line

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
        now_s: float,
        meta: bytes,
        reaps: bool = True,
    ) -> Reservation | Refusal:
        """Hold the call in every limit, or in none that enforces. Shadow limits count, and refuse nothing.

        prompt_tokens, output_tokens, cost_nano: upper bounds. meta: skeleton() of the call's event. Without limits the
        call only gets its lease, so that it is posted if its worker dies. Asking again for what is held changes nothing.
        reaps: post the dead leases in its way first; not while some may be of calls that ended and were not settled yet.
        Raises CountersLost, and ValueError for a call that is settled.
        """
        tokens, now_ms = prompt_tokens + output_tokens, round(now_s * 1000)
        held = limits if type(limits) is Bound else Bound(limits)
        asked = Reservation(
            request_id, tenant_id, time_zone, held, prompt_tokens, tokens, cost_nano, meta, NO_STATES, now_s + LEASE_S
        )
        layout, script = held.kept.get(tenant_id) or _prepared(tenant_id, held)
        answer = script.run(self._client, self._line, _reserve_args(asked, layout, now_ms, reaps=reaps))
        if answer == _LOST:
            raise CountersLost("the counters of the partition are not restored yet")
        if answer == _SETTLED:
            raise ValueError("the call is settled")
        came_to, states = layout.read(answer, held, now_ms)
        if came_to == _REFUSED:
            return _refusal(states, layout.moments_ms(answer), now_ms, asked)
        asked.states = states
        asked.has_much_room = came_to == _MUCH_ROOM
        return asked

    def settle(self, reservation: Reservation | None, event: EndedCall, *, now_s: float) -> bool:
        """Count what the call used, end what it holds, and put its event on the journal. True: for the first time.

        Again is harmless, for two hours. Without `reservation` (a call without limits, or sent again later) what Redis
        still holds of the call is found by its id; where it holds nothing of a call with limits, the call is journaled
        and the partition's counters are no longer alive: they must be restored. A call whose usage_source is none gives
        its request back too. A call that was reaped before adds, and journals as the next part, only what was not posted
        of it. Raises CountersLost while counters are being restored: then again in a moment.
        """
        zone = reservation.time_zone if reservation else ""
        now_ms, script = round(now_s * 1000), _settle_in(partition(event.tenant_id))
        done = script.run(self._client, self._line, _settle_args(reservation, event, now_ms, zone))
        if done == DONE:
            return True
        if isinstance(done, bytes):  # held in a zone we did not know
            done = script.run(self._client, self._line, _settle_args(reservation, event, now_ms, done.decode()))
        if done == _NOT_NOW:
            raise CountersLost("the counters of the partition are being restored")
        return bool(done == DONE)

    def begin_to_settle(self, reservation: Reservation | None, event: EndedCall, ear: "Ear", *, now_s: float) -> bool:
        """As settle(), but nobody waits: `ear` hears DONE, or whatever else it came to; then settle() is to be asked.

        False: it cannot be begun right now, and nobody hears anything.
        """
        if self._line is None:
            return False
        zone = reservation.time_zone if reservation else ""
        args = _settle_args(reservation, event, round(now_s * 1000), zone)
        return self._line.tell(_settle_in(partition(event.tenant_id)).command(args), ear)

    def settle_again(self, ended: Sequence[tuple[Reservation | None, EndedCall]], *, now_s: float) -> list[bool]:
        """Settle many in one round trip, or two. For each: False where counters are being restored, then again in a moment."""
        now_ms = _ms(now_s)
        zones = [reservation.time_zone if reservation else "" for reservation, _ in ended]
        done = run_all(self._client, _SETTLE, [_settle_run(*one, now_ms, zone) for one, zone in zip(ended, zones, strict=True)])
        zoned = [(at, zone.decode()) for at, zone in enumerate(done) if isinstance(zone, bytes)]
        for (at, _), answer in zip(
            zoned, run_all(self._client, _SETTLE, [_settle_run(*ended[at], now_ms, zone) for at, zone in zoned]), strict=True
        ):
            done[at] = answer
        return [answer != _NOT_NOW for answer in done]

    def hold(self, reservation: Reservation, *, now_s: float) -> None:
        """Hold a call that was admitted without Redis: unchecked, and also while counters are being restored."""
        run(self._client, _RESERVE, _held_run(reservation, reservation.limits, _ms(now_s)))

    def renew(self, live: Iterable[Progress], *, now_s: float) -> None:
        """Lease the reservations of live calls for another 30 s, and note how far they have come. One round trip.

        A reservation that is gone though its call lives (reaped while its worker stalled, or lost with Redis) is held
        again in a second one, unchecked: its tokens are being generated, and the counters had better know.
        """
        calls, now_ms = list(live), _ms(now_s)
        kept = run_all(self._client, _RENEW, [_renew_run(call, now_ms) for call in calls])
        gone = [call for call, is_kept in zip(calls, kept, strict=True) if not is_kept]
        run_all(self._client, _RESERVE, [_reserve_again(call.reservation, now_ms) for call in gone])
        run_all(self._client, _RENEW, [_renew_run(call, now_ms) for call in gone])

    def reap(self, partition_number: int, *, now_s: float) -> list[UsageEvent]:
        """Post the calls whose leases ran out, as lost, with the last count their workers told. Returns their events.

        reserve() does so too for the subjects of its call: this is for those that nobody calls any more.
        """
        events: list[UsageEvent] = []
        now_ms, leases = _ms(now_s), leases_key(partition_number)
        prefix = base(partition_number)
        while True:
            try:
                dead: Any = self._client.zrangebyscore(leases, "-inf", now_ms, 0, REAP_BATCH)
                with self._client.pipeline(transaction=False) as pipe:
                    for request_id in dead:
                        pipe.hget(f"{prefix}r:{request_id.decode()}", "call")
                    calls = pipe.execute()
            except RedisError as error:
                raise StoreUnavailable(str(error)) from error
            args: list[Any] = [prefix, now_ms]
            for request_id, call in zip(dead, calls, strict=True):
                args += [request_id, *day_and_month(now_ms // QUARTER_MS, _zone(call or b""))]
            lines = run(self._client, _REAP, Run([leases], args)) if dead else []
            events += [UsageEvent.from_dict(orjson.loads(line)) for line in lines]
            if len(dead) < REAP_BATCH:
                return events

    def state(self, tenant_id: str, limits: Sequence[BoundLimit], *, time_zone: str, now_s: float) -> list[LimitState]:
        """How the limits stand. Changes nothing. Raises CountersLost."""
        now_ms = _ms(now_s)
        answer = run(self._client, _STATE, _state_run(tenant_id, limits, time_zone, now_ms))
        if answer == _LOST:
            raise CountersLost("the counters of the partition are not restored yet")
        return _states(tenant_id, limits, answer, now_ms)

    def states(self, asked: Sequence[tuple[str, Sequence[BoundLimit], str]], *, now_s: float) -> list[list[LimitState] | None]:
        """state() of many (tenant's id, limits, time zone) in one round trip. None where counters are not restored yet."""
        now_ms = _ms(now_s)
        answers = run_all(
            self._client, _STATE, [_state_run(tenant_id, bound, zone, now_ms) for tenant_id, bound, zone in asked]
        )
        return [
            None if answer == _LOST else _states(tenant_id, bound, answer, now_ms)
            for (tenant_id, bound, _), answer in zip(asked, answers, strict=True)
        ]

    def restore(self, tenant_id: str, counters: Iterable[Counter], *, time_zone: str, now_s: float) -> int:
        """Set what counters have used. Returns how many were set.

        Before mark_alive() it replaces what a restore before it had set; after it, it sets only counters that are not
        there. Reservations stay as they are. What is older than its window or period counts for nothing.
        """
        now_ms = _ms(now_s)
        by_counter: dict[tuple[str, str, str], list[Counter]] = {}
        for counter in counters:
            by_counter.setdefault((counter.subject, counter.subject_id, counter.name), []).append(counter)
        alive = alive_key(partition(tenant_id))
        runs = []
        for (subject, subject_id, name), parts in by_counter.items():
            its = subject_key(tenant_id, subject, subject_id)
            args: list[Any] = [base(partition(tenant_id)), now_ms, CODES[name], *_amounts(name, parts, now_ms, time_zone)]
            runs.append(Run([alive, f"{its}counters", f"{its}live"], args))
        return sum(run_all(self._client, _RESTORE, runs))

    def kept(self, partition_number: int, names: Sequence[str]) -> Iterator[tuple[str, BoundLimit]]:
        """Of the limits of these names, those that have a counter in the partition: tenant's id and limit, its maximum 0.

        Slots have none. Raises RedisError while it is read.
        """
        prefix = f"{base(partition_number)}q:"
        for key in self._client.scan_iter(match=f"{prefix}*:counters", count=1000):
            packed: Any = self._client.get(key)
            if packed is None:
                continue
            tenant_id, subject, rest = key.decode()[len(prefix) :].split(":", 2)
            for name in counted(packed).intersection(names):
                yield tenant_id, BoundLimit(subject, rest.removesuffix(":counters"), Limit(name, 0))

    def is_alive(self, partition_number: int) -> bool:
        """Are the counters of the partition whole? False on the first day, and after Redis was emptied."""
        try:
            return bool(self._client.exists(alive_key(partition_number)))
        except RedisError as error:
            raise StoreUnavailable(str(error)) from error

    def journal_end(self, partition_number: int) -> str:
        """The id of the last event that was ever put on the partition's journal; 0-0 when none was."""
        try:
            if not self._client.exists(key := journal_key(partition_number)):
                return "0-0"
            last: Any = self._client.xinfo_stream(key)["last-generated-id"]
            return str(last.decode())
        except RedisError as error:
            raise StoreUnavailable(str(error)) from error

    def begin_counting(self, partition_number: int) -> None:
        """Have the partition's journal stand still for COUNTING_S at most, until mark_alive: what ends meanwhile waits.

        Else, where calls without limits go on, no ledger would ever hold all of the journal.
        """
        try:
            self._client.set(_counting_key(partition_number), 1, px=_ms(COUNTING_S))
        except RedisError as error:
            raise StoreUnavailable(str(error)) from error

    def mark_alive(self, partition_number: int, *, journal_end: str, now_s: float) -> bool:
        """Let calls with limits through again, after restore(). False: events came after `journal_end`, count again.

        While a partition is not alive, settle() only journals what Redis no longer knows the reservation of; whoever
        restores from ledger and journal up to `journal_end` therefore misses nothing and counts nothing twice.
        """
        keys = [alive_key(partition_number), journal_key(partition_number), _counting_key(partition_number)]
        return bool(run(self._client, _MARK_ALIVE, Run(keys, [journal_end, _ms(now_s)])))


def _ms(now_s: float) -> int:
    return round(now_s * 1000)


def _counting_key(partition_number: int) -> str:
    return f"{base(partition_number)}counting"


class _Prepared(NamedTuple):
    """For one kind of call: its limits' layout, and reserve.lua with what the same limits always tell it."""

    layout: Layout
    reserve: Prepared


def _prepared(tenant_id: str, limits: Bound) -> _Prepared:
    """Kept with the limits, as a cache of its own would compare 18 of them where they were read anew. Raises ValueError."""
    layout = layout_of(tenant_id, limits)
    last: list[str | bytes] = [*layout.codes, layout.maxima]
    reserve = Prepared(_RESERVE, layout.keys, first=(base(partition(tenant_id)),), own=11, last=last)
    found = limits.kept[tenant_id] = _Prepared(layout, reserve)
    return found


@lru_cache(maxsize=PARTITIONS)
def _settle_in(partition_number: int) -> Prepared:
    return Prepared(_SETTLE, (alive_key(partition_number),), first=(base(partition_number),), own=15)


def _reserve_again(asked: Reservation, now_ms: int) -> Run:
    """Of a call that runs already. Its request is counted: when it was admitted, or by whoever restores the counters."""
    held = Bound(bound for bound in asked.limits if bound.limit.name != "requests_per_minute")
    return _held_run(asked, held, now_ms)


def _held_run(asked: Reservation, limits: Bound, now_ms: int) -> Run:
    """To hold a call that runs already: no limit refuses it."""
    layout = layout_of(asked.tenant_id, limits)
    own = _reserve_args(asked, layout, now_ms, runs=True)
    return Run(layout.keys, (base(partition(asked.tenant_id)), *own, *layout.codes, boundless(layout)))


# The call as Redis keeps it, see read_reservation in lua/posting.lua: a line of what is asked, meta, what it holds.
_WRITTEN: Final = b"%d %d %d %d %b\n%b\n%b"


def _reserve_args(
    asked: Reservation, layout: Layout, now_ms: int, *, runs: bool = False, reaps: bool = False
) -> tuple[str | bytes | int, ...]:
    """What reserve.lua is told of one call. One without limits has no zone."""
    tokens, cost_nano, holds = asked.tokens, asked.cost_nano, layout.holds
    zone = asked.time_zone.encode() if holds else b""
    written = _WRITTEN % (tokens, cost_nano, now_ms // 1000, asked.prompt_tokens, zone, asked.meta, holds)
    periods = day_and_month(now_ms // QUARTER_MS, asked.time_zone)
    return asked.request_id, now_ms, tokens, cost_nano, *periods, written, int(runs), int(reaps)


def _zone(written: bytes) -> str:
    """The time zone in what _WRITTEN wrote."""
    return written.partition(b"\n")[0].rpartition(b" ")[2].decode()


def _settle_args(
    reservation: Reservation | None, event: EndedCall, now_ms: int, time_zone: str
) -> tuple[str | bytes | int, ...]:
    """What settle.lua is told of one call."""
    used_nothing = event.usage_source == "none"
    about = event.request_id, now_ms, *day_and_month(now_ms // QUARTER_MS, time_zone), time_zone
    counted = event.prompt_tokens, event.cached_tokens, event.completion_tokens, event.cost_nano
    holds = b""
    if reservation is not None:
        tenant_id, limits = reservation.tenant_id, reservation.limits
        holds = (limits.kept.get(tenant_id) or _prepared(tenant_id, limits))[0].holds
    holds_more = int(reservation is None and event.has_limits and not used_nothing)
    return *about, *counted, int(used_nothing), event.uncounted, holds, holds_more


def _settle_run(reservation: Reservation | None, event: EndedCall, now_ms: int, time_zone: str) -> Run:
    return _settle_in(partition(event.tenant_id)).with_own(_settle_args(reservation, event, now_ms, time_zone))


def _state_run(tenant_id: str, limits: Sequence[BoundLimit], time_zone: str, now_ms: int) -> Run:
    layout = layout_of(tenant_id, limits)
    return Run(layout.keys, [now_ms, *day_and_month(now_ms // QUARTER_MS, time_zone), *layout.codes])


def _states(tenant_id: str, limits: Sequence[BoundLimit], answer: bytes, now_ms: int) -> list[LimitState]:
    _, states = layout_of(tenant_id, limits).read(answer, Bound.of(limits), now_ms)
    return list(states)


def _renew_run(call: Progress, now_ms: int) -> Run:
    prefix, request_id = base(partition(call.reservation.tenant_id)), call.reservation.request_id
    prompt_tokens = -1 if call.prompt_tokens is None else call.prompt_tokens
    return Run([f"{prefix}r:{request_id}"], [prefix, request_id, now_ms, call.completion_tokens, prompt_tokens])


def _amounts(name: str, parts: Sequence[Counter], now_ms: int, time_zone: str) -> list[int]:
    """The arguments of restore.lua that say what was used when."""
    if name in PERIODIC:
        now_id, ends_s = period(name, now_ms / 1000, time_zone)
        used = sum(part.used for part in parts if period(name, part.at_s, time_zone)[0] == now_id)
        return [int(now_id.replace("-", "")), _ms(ends_s), used]
    amounts: list[int] = []
    for part in parts:
        amounts += (_ms(part.at_s) // WIDTHS_MS[name], part.used)
    return amounts


def _refusal(states: LimitStates, moments_ms: Sequence[int], now_ms: int, asked: Reservation) -> Refusal:
    waits = [(state, at) for state, at in zip(states, moments_ms, strict=True) if at != 0]
    by, at = max(waits, key=lambda wait: float("inf") if wait[1] < 0 else wait[1])
    refusing = tuple(state for state, _ in waits)
    return Refusal(by, None if at < 0 else (at - now_ms) / 1000, refusing, states, fits_tokens(states, refusing, asked))


__all__ = ["LEASE_S", "Counter", "CountersLost", "LimitState", "Progress", "Quota", "Refusal", "Reservation", "skeleton"]
