"""Tries a backend before it is used: what the gateway will ask of it, asked in the gateway's own way.

One short answer is generated. Its words are read for their form alone: kept, shown and logged nowhere.
"""

import time
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from gateway.config.documents import Backend
from gateway.routing.probing import probe_twice
from gateway.routing.verdicts import Answer, Verdict, judge
from gateway.upstream.client import UpstreamClient, UpstreamResponse
from gateway.upstream.errors import UpstreamError, UpstreamFailed, UpstreamGarbage, UpstreamReported, UpstreamSilence
from gateway.upstream.sse import EventSplitter, event_data

CONNECT_S: Final = 2.0
STREAM_S: Final = 20.0  # a large model that nobody called today may think that long
TOKENIZE_S: Final = 4.0
ANSWER_MAX_BYTES: Final = 1024 * 1024
TOKENS: Final = 8
MODELS_NAMED: Final = 5
_WORDS: Final = {
    "refused": gettext_lazy("it takes no connections"),
    "cut": gettext_lazy("the connection ended before the answer"),
    "timeout": gettext_lazy("nothing came in time"),
    "stalled": gettext_lazy("the answer stood still"),
    "garbage": gettext_lazy("the answer is not in the form of vLLM's"),
    "error_event": gettext_lazy("it reported an error"),
}
MESSAGES: Final = [{"role": "user", "content": "Say hello."}]


@dataclass(frozen=True, slots=True)
class Tried:
    """One question and how it went, in words for people. level warn: it can be used, but not for all."""

    name: str
    level: Literal["ok", "warn", "error"]
    detail: str
    remedy: str = ""


def try_backend(url: str, credential: str | None) -> list[Tried]:
    """url: as base_url() spells it. Within half a minute; nothing raises. After the first failure only what it leaves."""
    backend = Backend("trial", url, credential)
    findings = probe_twice(backend)
    verdict = judge(findings, (), previous=None, now_s=time.time())
    tried = [_reached(url, findings.health), *_told(verdict, findings.models)]
    if any(result.level == "error" for result in tried) or not verdict.models:
        return tried
    client = UpstreamClient()
    try:
        return [*tried, *_streamed(client, backend, verdict.models[0]), _tokenized(client, backend, verdict.models[0])]
    finally:
        client.drop_idle(older_than_s=0)


def _reached(url: str, health: Answer | UpstreamError) -> Tried:
    name = _("Health")
    asked = f"GET {url}/health"
    if isinstance(health, UpstreamError):
        remedy = _("Is it running, and is its URL right? The portal's machine must reach it too.")
        return Tried(
            name, "error", _("%(asked)s: no answer (%(problem)s)") % {"asked": asked, "problem": _word(health)}, remedy
        )
    detail = _("%(asked)s: status %(status)d") % {"asked": asked, "status": health.status}
    if health.status == 200:
        return Tried(name, "ok", detail)
    return Tried(name, "error", detail, _("Look into the backend's own log. Is the URL its base, without a path of the API?"))


def _told(verdict: Verdict, models: Answer | None) -> list[Tried]:
    """What it says of its models and of its load."""
    if models is None:
        return []
    name = _("Models")
    if models.status in (401, 403):
        return [Tried(name, "error", _("status %(status)d") % {"status": models.status}, _("It wants another credential."))]
    if not verdict.models:
        detail = _("/v1/models is no list of models (status %(status)d)") % {"status": models.status}
        return [Tried(name, "error", detail, _("Is it a vLLM server, and its URL the base?"))]
    shown = ", ".join(verdict.models[:MODELS_NAMED]) + ("…" if len(verdict.models) > MODELS_NAMED else "")
    if verdict.max_model_len:
        shown = _("%(models)s; %(tokens)d tokens of context") % {"models": shown, "tokens": verdict.max_model_len}
    told = [Tried(name, "ok", shown)]
    if verdict.load is None:
        remedy = _("Calls are spread by what is counted here alone. Is /metrics switched off, or behind a proxy?")
        return [*told, Tried(_("Gauges"), "warn", _("/metrics tells no load"), remedy)]
    facts = {"running": verdict.load.running, "waiting": verdict.load.waiting}
    return [*told, Tried(_("Gauges"), "ok", _("%(running)d calls run, %(waiting)d wait") % facts)]


def _streamed(client: UpstreamClient, backend: Backend, model: str) -> list[Tried]:
    name = _("Stream")
    body = {"model": model, "messages": MESSAGES, "max_tokens": TOKENS, "stream": True}
    begun_s = time.monotonic()
    try:
        events, first_s = _events(client, backend, orjson.dumps(body | {"stream_options": {"include_usage": True}}))
    except UpstreamError as error:
        remedy = _("Does it serve chat completions, and has its model a chat template?")
        return [Tried(name, "error", _("the stream failed: %(problem)s") % {"problem": _word(error)}, remedy)]
    facts = {"ms": round((first_s - begun_s) * 1000), "number": len(events)}
    streamed = Tried(name, "ok", _("first event after %(ms)d ms, %(number)d in all") % facts)
    usage = next((event["usage"] for event in reversed(events) if event.get("usage")), None)
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if type(tokens) is not int:
        remedy = _("Its calls are metered by estimates. vLLM tells usage when stream_options asks for it.")
        return [streamed, Tried(_("Usage"), "warn", _("the stream tells no usage"), remedy)]
    return [streamed, Tried(_("Usage"), "ok", _("%(number)d tokens of answer told") % {"number": tokens})]


def _events(client: UpstreamClient, backend: Backend, body: bytes) -> tuple[list[dict[str, Any]], float]:
    """The events up to [DONE], and when the first one came. Raises UpstreamError, for a stream that just ends too."""
    deadline = time.monotonic() + STREAM_S
    response = _post(client, backend, "/v1/chat/completions", body, deadline)
    splitter, first_s, size_bytes = EventSplitter(), 0.0, 0
    events: list[dict[str, Any]] = []
    try:
        if not response.is_event_stream:
            raise UpstreamGarbage("no event stream")
        while part := response.read_some(deadline):
            size_bytes += len(part)
            if size_bytes > ANSWER_MAX_BYTES or time.monotonic() > deadline:
                raise UpstreamSilence("the answer does not end")
            for event in splitter.feed(part):
                first_s = first_s or time.monotonic()
                data = event_data(event)
                if data == b"[DONE]":
                    return events, first_s
                if data is not None:
                    events.append(_object(data))
                    if "error" in events[-1]:
                        raise UpstreamReported
    finally:
        response.close(reuse=False)
    raise UpstreamGarbage("ends without [DONE]")


def _tokenized(client: UpstreamClient, backend: Backend, model: str) -> Tried:
    name = _("Token count")
    remedy = _("Prompts are counted by estimates, which are on the safe side. Is /tokenize switched off, or behind a proxy?")
    deadline = time.monotonic() + TOKENIZE_S
    try:
        response = _post(client, backend, "/tokenize", orjson.dumps({"model": model, "messages": MESSAGES}), deadline)
        try:
            count = _object(response.read_all(ANSWER_MAX_BYTES, deadline)).get("count")
        finally:
            response.close(reuse=False)
    except UpstreamError as error:
        return Tried(name, "warn", _("/tokenize failed: %(problem)s") % {"problem": _word(error)}, remedy)
    if type(count) is not int:
        return Tried(name, "warn", _("/tokenize tells no count"), remedy)
    return Tried(name, "ok", _("the prompt of this test has %(number)d tokens") % {"number": count})


def _post(client: UpstreamClient, backend: Backend, path: str, body: bytes, deadline: float) -> UpstreamResponse:
    """Raises UpstreamError, for another status than 200 too."""
    response = client.open_call(backend, path, body, headers={}, connect_s=CONNECT_S, first_byte_deadline=deadline)
    if response.status != 200:
        response.close(reuse=False)
        raise UpstreamFailed(f"status {response.status}")
    return response


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise UpstreamGarbage("no JSON object")
    return found


def _word(error: UpstreamError) -> str:
    """Own words, never the backend's."""
    return str(_WORDS[error.ending]) if error.ending in _WORDS else str(error)
