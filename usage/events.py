"""UsageEvent: what one call used. The contract between the gateway and the worker, versioned. Pure.

It carries names, not ids of other tables: an event must stay readable after its tenant, key or alias is gone. It never
carries a word of a prompt or an answer.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, Protocol, get_args

import orjson

from usage.values import light_dataclass

VERSION: Final = 3  # since 2 a decision of a content policy tells its holder, since 3 the gateway writes limit_columns

# completed: the backend ended the stream or answered whole. failed: it did not. client_left: the client did not wait.
# refused: the gateway or the backend said no, nothing was generated. timeout: a limit of time ended the call.
# lost: the worker that held the call died; posted by the reaper, with the last count the worker had told.
Outcome = Literal["completed", "failed", "client_left", "refused", "timeout", "lost"]
OUTCOMES: Final[tuple[str, ...]] = get_args(Outcome)

# How people count it: blocked by a content policy; failed is also timeout and lost; else the outcome.
Ending = Literal["completed", "client_left", "failed", "refused", "blocked"]
ENDINGS: Final[tuple[Ending, ...]] = get_args(Ending)

# backend: the backend's own count. estimated: ours, because the call ended before the backend told. none: no tokens.
UsageSource = Literal["backend", "estimated", "none"]

# Of an event's fields, what the scripts write: they know what was posted of the call before.
COUNTED: Final = frozenset({"part", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_nano"})


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageEvent:
    """One call, ended. Times: Unix seconds and milliseconds. Tokens: the model's own. None: not known or not reached.

    A call has one event with part 0. One that was posted as lost and then ended after all has more, with part 1 and up:
    they carry the true ending, and of tokens and cost only what the parts before lack. Sums over the parts are the call's.
    """

    request_id: str
    created_s: float
    tenant: str  # slug
    tenant_id: str
    key_id: str
    key_name: str
    alias: str
    deployment: str | None
    backend: str | None
    status: int  # HTTP status the client saw, or would have seen had it stayed
    outcome: Outcome
    error_code: str | None
    stream: bool
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    usage_source: UsageSource
    first_token_ms: int | None
    duration_ms: int
    attempts: int  # backends tried
    client_request_id: str | None = None
    end_user: str | None = None  # HMAC label of the client's `user`, never the raw value
    metadata: dict[str, str] | None = None
    part: int = 0
    cost_nano: int = 0  # nano-units of the installation's currency
    price: dict[str, int] | None = None  # prompt, cached, completion: pico-units a token, as they were at the call
    reserved_tokens: int = 0
    limits: list[dict[str, Any]] | None = None  # as seen: subject, name, limit, used, reserved, max, mode
    queue_ms: int = 0
    clamped: bool = False  # the output was shortened to what a limit had left
    policy: list[dict[str, Any]] | None = None  # decisions of content policies; last {"more": n} where n are left out
    # How long the gateway's own checks took: key; content policies, where any apply; what the call may cost. Microseconds.
    auth_us: int | None = None
    policy_us: int | None = None
    admission_us: int | None = None
    version: int = VERSION

    def to_dict(self) -> dict[str, Any]:
        """As on the journal: names to plain values, in the order of this class, what is None left out. Shares them."""
        return {name: value for name in _NAMES if (value := getattr(self, name)) is not None}

    def json(self) -> bytes:
        """The line of the journal and of the spool."""
        return orjson.dumps(self.to_dict())

    @property
    def uncounted(self) -> bytes:
        """The same without what a script will write."""
        return self.json_without(COUNTED)

    def json_without(self, names: frozenset[str]) -> bytes:
        return orjson.dumps({name: value for name, value in self.to_dict().items() if name not in names})

    @property
    def has_limits(self) -> bool:
        return bool(self.limits)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "UsageEvent":
        """Read from the journal. Names of a newer version are dropped; a missing one raises TypeError."""
        given = {name: value for name, value in values.items() if name in _NAMES}
        if (columns := values.get("limit_columns")) is not None:
            given["limits"] = limits_of(columns)
        for optional in ("deployment", "backend", "error_code", "first_token_ms"):
            given.setdefault(optional, None)
        return cls(**given)


def limits_of(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """UsageEvent.limits from the form in which the gateway writes them, see LimitStates.columns.

    By a name of its own in the JSON, limit_columns: an older release drops it, where it would post what it cannot show.
    Raises ValueError, TypeError or AttributeError for what is not of that form.
    """
    parts = (columns.get(part) for part in ("of", "used", "reserved"))
    return [limit | {"used": used, "reserved": reserved} for limit, used, reserved in zip(*parts, strict=True)]


class EndedCall(Protocol):
    """What settling asks of an event: a UsageEvent, or one that was just written."""

    @property
    def request_id(self) -> str: ...
    @property
    def tenant_id(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def cost_nano(self) -> int: ...
    @property
    def usage_source(self) -> UsageSource: ...
    @property
    def has_limits(self) -> bool: ...
    @property
    def uncounted(self) -> bytes: ...

    def json(self) -> bytes: ...


@light_dataclass
class WrittenEvent:
    """An event as the gateway makes it: as JSON at once, and beside it what settling asks for.

    A UsageEvent of 36 fields, made and taken apart again three times, took a call a tenth of its CPU time (2026-11).
    """

    request_id: str
    tenant_id: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_nano: int
    usage_source: UsageSource
    has_limits: bool
    uncounted: bytes = field(repr=False)  # as JSON, without what a script will write

    def json(self) -> bytes:
        counted = self.prompt_tokens, self.cached_tokens, self.completion_tokens, self.cost_nano
        return self.uncounted[:-1] + _COUNTED_JSON % counted


_COUNTED_JSON: Final = b',"part":0,"prompt_tokens":%d,"cached_tokens":%d,"completion_tokens":%d,"cost_nano":%d}'


def ending(event: UsageEvent) -> Ending:
    """A correction counts where the lost call does that it corrects."""
    if event.part:
        return "failed"
    if event.error_code == "content_blocked":
        return "blocked"
    if event.outcome in ("completed", "client_left", "refused"):
        return event.outcome
    return "failed"


_NAMES: Final = {f.name: None for f in fields(UsageEvent)}  # ordered, and quick to look into
