"""A chat completion request: read strictly from a client's JSON, then fitted to the alias it calls. Pure.

    validate(body) -> ChatRequest          what can be known without the alias; 400 otherwise
    for_alias(request, ...) -> Upstream    what this alias and this tenant make of it

The fields are in fields.py, one by one; here is what they mean together. Errors name places and never quote a value.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from gateway.api.checks import INT64_MAX, MAX_DEPTH, MAX_PROBLEMS, Problem, below, depth_problem
from gateway.api.constraints import backend_grants
from gateway.api.fields import FIELDS, IGNORED, OWNED, PRIVILEGED, REQUIRED
from gateway.api.messages import media_grants, without_nulls
from gateway.config.documents import Alias, Tenant
from gateway.exceptions import InvalidRequest
from usage.values import light_dataclass

# What a greedy answer is to vLLM: below this a temperature counts as 0 (its _SAMPLING_EPS).
_GREEDY_TEMPERATURE: Final = 1e-5
_MAX_NAMES_LISTED: Final = 32
_HEADER_SAFE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_UNPRINTABLE: Final = "(unprintable)"
_PLAIN: Final = {"type": "text"}
# Without any of these there is nothing that could contradict another: most requests are asked no further.
_CONTENTIOUS: Final = frozenset({
    "continue_final_message", "logprob_token_ids", "min_tokens", "prompt_logprobs", "stream_options", "structured_outputs",
    "tool_choice", "top_logprobs",
})  # fmt: skip
# The same of what an alias or vLLM caps: one answer and no stop are always within it.
_CAPPED: Final = frozenset({"n", "stop", "min_tokens"})


@dataclass(frozen=True, slots=True)
class CacheControl:
    """The client's wish about the response cache. max_age_s: None leaves it to the alias."""

    type: str = "default"
    max_age_s: int | None = None


@light_dataclass
class ChatRequest:
    """A valid request. What a client wrote is kept out of the repr.

    continuous_usage: running usage was asked for, and include_usage with it (alone it does nothing, as in vLLM).
    n, stop_count: as the client asked; an alias may default both. max_tokens: the smaller of its two names, for each choice.
    forwarded: fields for the backend, but for max_tokens. privileged: grants that the request needs -> where it does.
    unknown: fields without a row, with their values. ignored: known fields that nothing here obeys.
    """

    model: str
    stream: bool
    include_usage: bool
    continuous_usage: bool
    n: int
    max_tokens: int | None
    stop_count: int
    user: str | None = field(repr=False)
    metadata: Mapping[str, str] | None = field(repr=False)
    cache_control: CacheControl | None
    cache_salt: str | None = field(repr=False)
    forwarded: Mapping[str, Any] = field(repr=False)
    privileged: Mapping[str, str]
    unknown: Mapping[str, Any] = field(repr=False)
    ignored: tuple[str, ...]


@light_dataclass
class Upstream:
    """fields: for the backend, all but what the gateway sets itself (model, stream, stream_options, priority, cache_salt).

    dropped: names of the client's fields that go nowhere, fit for a header.
    """

    fields: dict[str, Any] = field(repr=False)
    dropped: tuple[str, ...]


def validate(body: Mapping[str, Any]) -> ChatRequest:
    """Check a decoded body. Raises InvalidRequest with up to ten details, the first of them as `param`."""
    if problem := depth_problem(body):
        raise _invalid([(_too_deep_field(body), problem)])
    forwarded: dict[str, Any] = {}
    privileged: dict[str, str] = {}
    unknown: dict[str, Any] = {}
    ignored: list[str] = []
    problems: list[Problem] = []
    for name, value in body.items():
        if value is None:
            continue
        row = FIELDS.get(name)
        if row is None:
            unknown[name] = value
        elif found := row.check.find(value):
            problems += below(name, found)
        elif row.kind == IGNORED:
            ignored.append(name)
        elif row.kind == PRIVILEGED:
            if value is not False and value not in ({}, []):  # the defaults, written out
                privileged[name] = name
                forwarded[name] = value
        elif row.kind != OWNED:
            forwarded[name] = value
    problems += [(name, "is required.") for name in REQUIRED if body.get(name) is None]
    if not (problems or _CONTENTIOUS.isdisjoint(body)):
        problems += _contradictions(body)
    if problems:
        raise _invalid(problems)
    return _compile(body, forwarded, privileged, unknown, tuple(ignored))


def _compile(
    body: Mapping[str, Any],
    forwarded: dict[str, Any],
    privileged: dict[str, str],
    unknown: Mapping[str, Any],
    ignored: tuple[str, ...],
) -> ChatRequest:
    messages = forwarded["messages"]
    privileged.update(media_grants(messages))
    if structured_outputs := forwarded.get("structured_outputs"):
        privileged.update(backend_grants(structured_outputs))
    forwarded["messages"] = without_nulls(messages)
    stream_options = body.get("stream_options") or {}
    include_usage = stream_options.get("include_usage") is True
    cache = body.get("cache_control")
    user = body.get("user")
    return ChatRequest(
        model=body["model"],
        stream=body.get("stream") is True,
        include_usage=include_usage,
        continuous_usage=include_usage and stream_options.get("continuous_usage_stats") is True,
        n=forwarded.get("n", 1),
        max_tokens=_smaller(forwarded.pop("max_tokens", None), forwarded.pop("max_completion_tokens", None)),
        stop_count=_count(forwarded["stop"]) if "stop" in forwarded else 0,
        user=user if user is not None else body.get("safety_identifier"),
        metadata=body.get("metadata"),
        cache_control=None if cache is None else CacheControl(cache.get("type") or "default", cache.get("max_age")),
        cache_salt=body.get("cache_salt"),
        forwarded=forwarded,
        privileged=privileged,
        unknown=unknown,
        ignored=ignored,
    )


def for_alias(request: ChatRequest, alias: Alias, tenant: Tenant) -> Upstream:
    """Fit a valid request to its alias: grants, caps, defaults, and the tenant's way with unknown fields.

    max_tokens is clamped to the alias's cap and set to it where absent. Raises InvalidRequest.
    """
    problems: list[Problem] = []
    for grant, place in request.privileged.items():
        if grant not in alias.grants:
            problems.append((place, "is not available for this model."))
    if tenant.unknown_fields == "reject":
        problems += [(_printable(name), "is not a known field.") for name in islice(request.unknown, MAX_PROBLEMS)]
    fields = {**alias.defaults, **request.forwarded}
    max_tokens = _output_limit(request, alias, fields)
    if max_tokens is not None:
        fields["max_tokens"] = max_tokens
    if not _CAPPED.isdisjoint(fields):
        problems += _excesses(fields, alias)
    if problems:
        raise _invalid(problems)
    if tenant.unknown_fields == "pass":
        fields = {**request.unknown, **fields}
    dropped = request.ignored
    if request.unknown and tenant.unknown_fields == "drop":
        dropped += tuple(dict.fromkeys(map(_printable, islice(request.unknown, _MAX_NAMES_LISTED))))
    return Upstream(fields, dropped)


def default_problems(defaults: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with an alias's `defaults`, for those who save one: only fields that go upstream, with valid values."""
    problems: list[Problem] = []
    for name, value in defaults.items():
        row = FIELDS.get(name)
        if row is None or row.kind in {OWNED, IGNORED} or name in REQUIRED:
            problems.append((name, "is not a field that an alias can set."))
        else:
            problems += below(name, row.check.find(value))
    return problems or list(_contradictions(defaults))


# ---- what fields mean together


def _contradictions(body: Mapping[str, Any]) -> Iterator[Problem]:
    """Fields that are right alone and wrong together. vLLM refuses each of these too, in words that we would not pass on."""
    get = body.get
    if get("stream_options") and not get("stream"):
        yield "stream_options", "needs stream to be true."
    if get("prompt_logprobs") and get("stream"):
        yield "prompt_logprobs", "is not available in a stream."
    if not get("logprobs"):
        yield from ((name, "needs logprobs to be true.") for name in ("top_logprobs", "logprob_token_ids") if get(name))
    if get("add_generation_prompt") and get("continue_final_message"):
        yield "continue_final_message", "must not be true together with add_generation_prompt."
    limit = _smaller(get("max_tokens"), get("max_completion_tokens"))
    if limit is not None and (get("min_tokens") or 0) > limit:
        yield "min_tokens", "must not be greater than max_tokens."
    tool_choice = get("tool_choice")
    if tool_choice is not None and tool_choice != "none":
        yield from _tool_choice_problems(tool_choice, get("tools") or ())
    if get("structured_outputs") and (get("response_format") or _PLAIN)["type"] != "text":
        yield "structured_outputs", "must not be given together with a response_format other than text."


def _tool_choice_problems(choice: str | Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    if not tools:
        yield "tool_choice", "needs tools."
    elif not isinstance(choice, str):
        name = choice["function"]["name"]
        if all(tool["function"]["name"] != name for tool in tools):
            yield "tool_choice.function.name", "must be the name of one of the tools."


def _excesses(fields: Mapping[str, Any], alias: Alias) -> Iterator[Problem]:
    """What goes beyond the alias's caps, or beyond vLLM's once the alias's defaults and caps are in place."""
    n = fields.get("n", 1)
    if n > alias.max_choices:
        yield "n", f"must be at most {alias.max_choices} for this model."
    if _count(fields.get("stop")) > alias.max_stops:
        yield "stop", f"must hold at most {alias.max_stops} texts for this model."
    if fields.get("min_tokens", 0) > fields.get("max_tokens", INT64_MAX):
        yield "min_tokens", f"must be at most {fields['max_tokens']} for this model."
    if n > 1 and fields.get("temperature", 1) < _GREEDY_TEMPERATURE and not fields.get("use_beam_search"):
        yield "n", "must be 1 where temperature is 0: all answers would be the same."


def _output_limit(request: ChatRequest, alias: Alias, fields: dict[str, Any]) -> int | None:
    """The most tokens for each choice. Takes both names of the default out of `fields`: vLLM would prefer the newer one."""
    wished = request.max_tokens
    if alias.defaults:
        default = _smaller(fields.pop("max_tokens", None), fields.pop("max_completion_tokens", None))
        wished = default if wished is None else wished
    return _smaller(wished, alias.max_output_tokens)


def _smaller(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _count(stop: str | Sequence[str] | None) -> int:
    return 1 if isinstance(stop, str) else len(stop or ())


# ---- errors


def _too_deep_field(body: Mapping[str, Any]) -> str:
    return next(_printable(name) for name, value in body.items() if depth_problem(value, max_depth=MAX_DEPTH - 1))


def _printable(name: str) -> str:
    """A client's name of a field, where it can stand in a header."""
    return name if _HEADER_SAFE.fullmatch(name) else _UNPRINTABLE


def _invalid(problems: Sequence[Problem]) -> InvalidRequest:
    details = [{"param": place, "message": message} for place, message in problems[:MAX_PROBLEMS]]
    return InvalidRequest(param=problems[0][0] or None, details=details)
