"""Call: what is known of one request under /v1, from its first byte to its last. Ended exactly once."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import orjson
from uuid_utils import uuid7

from gateway import afterwards, call_log, metrics
from gateway.config.documents import Price
from gateway.exceptions import ContentBlocked, GatewayError
from gateway.policy.decisions import Decision
from gateway.policy.masks import Masks
from gateway.policy.rules import ACTIONS
from gateway.policy.ruleset import RuleSet
from gateway.pricing import cost_nano
from gateway.principal import Principal
from gateway.upstream.metering import NO_USAGE, Usage
from usage.estimates import Prompt
from usage.events import VERSION, EndedCall, Outcome, WrittenEvent
from usage.reservation import NO_STATES, Reservation

DECISIONS_MAX: Final = 100  # in a call's record
# Of the event's fields: what not every call comes to, or has.
_IF_KNOWN: Final = (
    "deployment", "backend", "first_token_ms", "price", "client_request_id", "end_user", "metadata", "auth_us", "policy_us",
    "admission_us",
)  # fmt: skip


class Place(Protocol):
    """A place under a deployment's ceiling, as routing/slots.py gives them out."""

    queue_ms: int

    def abandon(self) -> None:
        """Whoever waits for it does so no longer."""

    def release(self) -> None:
        """The next call may have it."""


class Call:
    """Filled in by each station as the call passes it; `end` writes the usage event, the log line and the metrics.

    `abandon` is called from another greenlet when the client has left, `break_off` when this process has to end: they end
    whatever the call waits for.
    """

    __slots__ = (
        "_abort", "_ending", "_places", "admission_us", "alias", "attempts", "auth_us", "backend", "client_left",
        "client_request_id", "created_s", "deadline", "decisions", "deployment", "dropped_params", "end_user", "ended",
        "endpoint", "error", "first_token_ms", "is_broken_off", "is_clamped", "is_handed_over", "is_metered", "is_probe",
        "limit_states", "masks", "metadata", "patience_s", "policy_us", "price", "principal", "prompt", "prompt_estimate",
        "record", "request_id", "reservation", "retry_count", "rules", "started", "stop_watching", "stream", "waited_ms",
    )  # fmt: skip

    def __init__(
        self, *, client_request_id: str | None, max_s: float, record: Callable[[Reservation | None, EndedCall], None]
    ) -> None:
        self.request_id = str(uuid7())
        self.client_request_id = client_request_id
        self.endpoint = "none"
        self.record = record
        self.started = time.monotonic()
        self.deadline = self.started + max_s  # the whole of it, waiting and answering
        self.created_s = time.time()
        self.principal: Principal | None = None
        self.error: GatewayError | None = None
        self.is_probe = False  # asked by a load balancer, several times a second: no line, no count
        self.is_metered = False  # a call that may use tokens: it leaves a usage event
        self.is_handed_over = False  # a relay holds the call and will end it
        self.ended = False
        self.client_left = False
        self.is_broken_off = False
        self.stream = False
        self.patience_s: float | None = None  # the longest silence the client itself says it waits through
        self.alias = ""
        self.deployment: str | None = None
        self.backend: str | None = None
        self.attempts = 0
        self.retry_count: str | None = None
        self.auth_us: int | None = None
        self.policy_us: int | None = None
        self.admission_us: int | None = None
        self.first_token_ms: int | None = None
        self.dropped_params: tuple[str, ...] = ()
        self.end_user: str | None = None
        self.metadata: dict[str, str] | None = None
        self.prompt: Prompt | None = None  # its measure, for bounds and estimates
        self.prompt_estimate = (0, 0)  # tokens: likely, and at most; as its first deployment counts
        self.price: Price | None = None
        self.reservation: Reservation | None = None
        self.limit_states = NO_STATES  # as they stood after admission, or at the refusal
        self.is_clamped = False
        self.rules: RuleSet | None = None  # of the content policies that apply, as they were when it came
        self.masks: Masks | None = None  # there where rules are
        self.decisions: list[Decision] = []
        self.waited_ms = 0  # for its places, as it was at the end
        self.stop_watching: Callable[[], None] = lambda: None
        self._abort: Callable[[], None] | None = None
        self._places: list[Place] = []
        self._ending = [None]  # whoever takes it out ends the call: that is one, whatever races
        _running.add(self)
        metrics.counts[metrics.IN_FLIGHT,] += 1

    def hold(self, place: Place, abort: Callable[[], None]) -> None:
        """Keep `place` until the call ends. It, and what `abort` ends, is what the call waits for from now on."""
        self._places.append(place)
        self._abort = abort
        if self.client_left or self.is_broken_off:
            self._cancel()

    def abandon(self) -> None:
        """The client is gone. Safe from any greenlet, at any time."""
        self.client_left = True
        self._cancel()

    def break_off(self) -> None:
        """This process ends: the client is told so. Safe from any greenlet, at any time."""
        if not self.client_left:
            self.is_broken_off = True
            self._cancel()

    @property
    def is_over(self) -> bool:
        """Is it cancelled, by whomever?"""
        return self.client_left or self.is_broken_off

    def _cancel(self) -> None:
        for place in self._places:
            place.abandon()
        if self._abort is not None:
            self._abort()

    @property
    def queue_ms(self) -> int:
        """How long it waited for its places."""
        waited_ms = 0
        for place in self._places:
            waited_ms += place.queue_ms
        return waited_ms

    def elapsed_ms(self) -> int:
        return int((time.monotonic() - self.started) * 1000)

    def end(self, *, status: int, outcome: Outcome, error_code: str | None = None, usage: Usage = NO_USAGE) -> None:
        """Write down how it ended. Only the first call counts: several ends may race when a client leaves."""
        try:
            self._ending.pop()
        except IndexError:
            return
        self.ended = True
        _running.discard(self)
        self.stop_watching()
        for place in self._places:
            place.release()
        self.waited_ms = self.queue_ms
        duration_ms = self.elapsed_ms()
        if self.decisions and any(decision.action == "block" for decision in self.decisions):
            error_code = error_code or ContentBlocked.code
        metrics.counts[metrics.IN_FLIGHT,] -= 1
        if self.is_probe:
            return
        afterwards.do(self._tell, status, outcome, error_code, usage, duration_ms)
        if self.principal is not None and self.is_metered:
            self.record(self.reservation, self._event(self.principal, status, outcome, error_code, usage, duration_ms))

    def _tell(self, status: int, outcome: Outcome, error_code: str | None, usage: Usage, duration_ms: int) -> None:
        """Its line, and its metrics."""
        call_log.note(self._line(status, outcome, error_code, usage, duration_ms))
        tenant = self.principal.tenant.slug if self.principal else ""
        metrics.counts[metrics.CALLS, tenant, self.alias, str(status), outcome] += 1
        if self.principal is None or not self.is_metered:
            return
        metrics.observed[metrics.DURATION, self.alias].append(duration_ms / 1000)
        if self.first_token_ms is not None:
            metrics.observed[metrics.FIRST_TOKEN, self.alias].append(self.first_token_ms / 1000)
        metrics.counts[metrics.TOKENS, tenant, self.alias, "prompt"] += usage.prompt_tokens
        metrics.counts[metrics.TOKENS, tenant, self.alias, "cached"] += usage.cached_tokens
        metrics.counts[metrics.TOKENS, tenant, self.alias, "completion"] += usage.completion_tokens
        for decision in self.decisions:
            metrics.counts[metrics.POLICY_DECISIONS, decision.policy, decision.action] += 1

    def skeleton(self) -> bytes:
        """What is posted should its worker die: its event so far, as usage.reservation.skeleton makes it of a whole one."""
        if self.principal is None:
            raise RuntimeError("a call without a principal leaves no event")
        facts = self._facts(self.principal)
        facts["status"] = 200
        return orjson.dumps(facts)

    def _event(
        self, principal: Principal, status: int, outcome: Outcome, error_code: str | None, usage: Usage, duration_ms: int
    ) -> WrittenEvent:
        facts = self._facts(principal)
        facts["status"] = status
        facts["outcome"] = outcome
        if error_code is not None:
            facts["error_code"] = error_code
        facts["usage_source"] = usage.source
        facts["duration_ms"] = duration_ms
        cost = cost_nano(self.price, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
        counted = usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, cost, usage.source
        return WrittenEvent(self.request_id, principal.tenant.id, *counted, bool(self.limit_states.limits), orjson.dumps(facts))

    def _facts(self, principal: Principal) -> dict[str, Any]:
        """Of its event, what does not wait for its end.

        What is None is never put in: to build all 28 fields and drop those took 5 us, three times a call (2026-11).
        """
        facts: dict[str, Any] = {
            "request_id": self.request_id,
            "created_s": round(self.created_s, 3),
            "tenant": principal.tenant.slug,
            "tenant_id": principal.tenant.id,
            "key_id": principal.key.id,
            "key_name": principal.key.name,
            "alias": self.alias,
            "stream": self.stream,
            "queue_ms": self.waited_ms,
            "attempts": self.attempts,
            "reserved_tokens": self.reservation.tokens if self.reservation else 0,
            "clamped": self.is_clamped,
            "version": VERSION,
        }
        for name in _IF_KNOWN:
            if (value := getattr(self, name)) is not None:
                facts[name] = value
        if self.limit_states.limits:
            facts["limit_columns"] = self.limit_states.columns()
        if self.decisions:
            facts["policy"] = decisions_told(self.decisions)
        return facts

    def _line(self, status: int, outcome: Outcome, error_code: str | None, usage: Usage, duration_ms: int) -> dict[str, Any]:
        """For the log. As in _facts, what is None is left out."""
        line: dict[str, Any] = {
            "request_id": self.request_id,
            "endpoint": self.endpoint,
            "status": status,
            "outcome": outcome,
            "duration_ms": duration_ms,
        }
        if self.client_request_id is not None:
            line["client_request_id"] = self.client_request_id
        if error_code is not None:
            line["error_code"] = error_code
        if self.principal is not None:
            line["tenant"] = self.principal.tenant.slug
            line["key_id"] = self.principal.key.id
            line["key_name"] = self.principal.key.name
        if self.is_metered:
            self._add_metered(line, usage)
        return line

    def _add_metered(self, line: dict[str, Any], usage: Usage) -> None:
        line |= {
            "alias": self.alias,
            "stream": self.stream,
            "attempts": self.attempts,
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "completion_tokens": usage.completion_tokens,
            "usage_source": usage.source,
            "queue_ms": self.waited_ms,
        }
        if self.deployment is not None:
            line["deployment"] = self.deployment
        if self.backend is not None:
            line["backend"] = self.backend
        if self.first_token_ms is not None:
            line["first_token_ms"] = self.first_token_ms
        if self.retry_count is not None:
            line["client_retry"] = self.retry_count


# A set, and not one of weak references: every call ends.
_running: Final[set[Call]] = set()


def running() -> list[Call]:
    """The calls of this worker that have not ended."""
    return list(_running)


def us_since(begun: float) -> int:
    """Microseconds since `begun`, of time.perf_counter(). In a finally, so that what raises is timed too."""
    return int((time.perf_counter() - begun) * 1_000_000)


def in_time_s(patience_s: float) -> float:
    """When to answer a client that gives up after `patience_s` of silence: a little before, as it began to count before us."""
    return max(patience_s / 2, patience_s - min(2.0, max(0.2, patience_s / 10)))


def decisions_told(decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    """For the call's record: the strictest first where there are too many, and how many more there were."""
    if len(decisions) <= DECISIONS_MAX:
        return [decision.to_dict() for decision in decisions]
    kept = sorted(decisions, key=lambda decision: ACTIONS.index(decision.action))[:DECISIONS_MAX]
    return [*(decision.to_dict() for decision in kept), {"more": len(decisions) - DECISIONS_MAX}]
