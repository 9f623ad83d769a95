"""The playground of a tenant: a call by hand, through the gateway as any program's. What is asked and answered is kept nowhere.

With JavaScript the answer streams in (static/portal/playground.js); without it the form's own POST shows the whole of it.
"""

import json
import time
from typing import Any, Final
from uuid import UUID

import orjson
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from accounts.issuing import IssuingError
from accounts.models import Tenant
from accounts.playground import name_of
from accounts.roles import Action
from portal import snippets
from portal.access import by, person, require
from portal.forms.playground import PANES, PlaygroundForm, Turn, as_typed, turns_of
from portal.playground import answers, calls
from portal.remedies import remedy
from portal.views.reports import past_request

POST: Final = ("POST",)
READ_AND_POST: Final = ("GET", "HEAD", "POST")
PROGRAMS: Final = ("curl", "python", "javascript")
ANSWERED: Final = "x-gateway-answer"
# A call is settled in the moment after its last byte: so long its story is waited for.
STORY_MAX_S: Final = 1.0
STORY_EVERY_S: Final = 0.1
PACE_FROM_MS: Final = 50  # of an answer; a shorter one says nothing of how fast tokens come


@require(Action.USE_PLAYGROUND, methods=READ_AND_POST)
@sensitive_post_parameters()
@sensitive_variables()
def index(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    """A POST of `send` shows the answers; one of another button the form, with a message more or less."""
    if request.method != "POST":
        chosen = {name: request.GET[name] for name in ("alias", "compare") if name in request.GET}
        return _page(request, tenant, PlaygroundForm(tenant=tenant, initial=chosen))
    do = request.POST.get("do", "send")
    if do != "send":
        form = PlaygroundForm(tenant=tenant, initial=as_typed(request.POST))
        form.turns = _edited(request, do)
        return _page(request, tenant, form)
    form = PlaygroundForm(request.POST, tenant=tenant)
    found: dict[str, answers.Answer] = {}
    if form.is_valid():
        try:
            found = {pane: _whole(request, tenant, form.body(pane)) for pane in form.panes}
        except (calls.Busy, calls.Unreachable, IssuingError) as error:
            form.add_error(None, _refusal(error)[1])
    return _page(request, tenant, form, found)


@require(Action.USE_PLAYGROUND, methods=POST)
@sensitive_post_parameters()
@sensitive_variables()
def call(request: HttpRequest, tenant: Tenant) -> HttpResponseBase:
    """The bytes of the gateway's answer as they come; how it answered is in the header ANSWERED, as JSON.

    422: the form will not do; 409, 429, 502: there was no call. Then `problem` says why, for people.
    """
    form = PlaygroundForm(request.POST, tenant=tenant)
    pane = request.POST.get("pane", PANES[0])
    if not form.is_valid() or pane not in form.panes:
        return JsonResponse({"problem": _("Look at the fields: something will not do.")}, status=422)
    try:
        begun = calls.begin(tenant, person(request), orjson.dumps(form.body(pane)), request.META, **by(request))
    except (calls.Busy, calls.Unreachable, IssuingError) as error:
        status, problem = _refusal(error)
        return JsonResponse({"problem": problem}, status=status)
    # Bytes that a model wrote: nothing that a browser would show by itself.
    answer = StreamingHttpResponse(begun, content_type="application/octet-stream")
    answer[ANSWERED] = json.dumps(calls.told(begun))
    answer["x-accel-buffering"] = "no"
    return answer


@require(Action.USE_PLAYGROUND, methods=POST)
@sensitive_post_parameters()
@sensitive_variables()
def code(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    """The call of the form as programs make it; 204 while the form will not do."""
    form = PlaygroundForm(request.POST, tenant=tenant)
    if not form.is_valid():
        return HttpResponse(status=204)
    return render(request, "portal/playground/_code.html", {"tenant": tenant, **_code(form, request.POST.get("program", ""))})


@require(Action.USE_PLAYGROUND)
def told(request: HttpRequest, tenant: Tenant, pk: UUID) -> HttpResponse:
    """What the gateway tells of a call that ended a moment ago: a part of the page."""
    story = _story(tenant, str(pk))
    if story is None:
        raise Http404
    return render(request, "portal/playground/_told.html", {"tenant": tenant, **story})


def _page(
    request: HttpRequest, tenant: Tenant, form: PlaygroundForm, found: dict[str, answers.Answer] | None = None
) -> HttpResponse:
    context = {
        "tenant": tenant,
        "form": form,
        "panes": [_pane(tenant, form, name, (found or {}).get(name)) for name in PANES],
        "key_name": name_of(person(request)),
        **_code(form),
    }
    return render(request, "portal/playground/show.html", context)


def _pane(tenant: Tenant, form: PlaygroundForm, name: str, answer: answers.Answer | None) -> dict[str, Any]:
    if answer is None:
        return {"name": name}
    return {"name": name, "answer": answer, "alias": form.body(name)["model"], **(_story(tenant, answer.request_id) or {})}


def _edited(request: HttpRequest, do: str) -> list[Turn]:
    """The messages, with one more, or with the answer of a pane, or without one."""
    turns = turns_of(request.POST)
    verb, _dash, which = do.partition("-")
    if verb == "continue" and (answer := request.POST.get(f"answer-{which}")):
        return [*turns, Turn("assistant", answer), Turn("user", "")]
    if verb == "remove":
        return [turn for place, turn in enumerate(turns) if str(place) != which] or [Turn("user", "")]
    if verb == "begin" or not turns:
        return [Turn("user", "")]
    return [*turns, Turn("assistant" if turns[-1].role == "user" else "user", "")]


def _whole(request: HttpRequest, tenant: Tenant, body: dict[str, Any]) -> answers.Answer:
    begun = calls.begin(tenant, person(request), orjson.dumps(body), request.META, **by(request))
    try:
        return answers.read(begun.status, begun.reason, begun.headers, b"".join(begun))
    finally:
        begun.close()


def _refusal(error: Exception) -> tuple[int, str]:
    """Why there was no call: HTTP status, and words for people."""
    if isinstance(error, calls.Busy):
        return 429, _(
            "Two answers of yours are running already, or too many people's at once: wait for one to end, or stop it."
        )
    if isinstance(error, IssuingError):
        return 409, error.message
    return 502, _("The gateway did not answer. Try again; if it goes on, tell the operator of this installation.")


def _code(form: PlaygroundForm, program: str = "") -> dict[str, Any]:
    """Of the form as it stands; nothing where it will not do, or is new. program: whose is in front."""
    if not form.is_bound or not form.is_valid():
        return {}
    url = snippets.base_url(settings.GATEWAY_PUBLIC_URL)
    chosen = program if program in PROGRAMS else PROGRAMS[0]
    return {"program": chosen, **snippets.of_call(url, form.body(PANES[0]))}


def _story(tenant: Tenant, request_id: str) -> dict[str, Any] | None:
    """As the templates have it; None where the tenant made no such call, or its story is not there yet."""
    ends_s = time.monotonic() + STORY_MAX_S
    while (story := past_request(tenant, {"request_id": request_id, "key_id": None})) is None:
        if time.monotonic() > ends_s:
            return None
        time.sleep(STORY_EVERY_S)
    first_ms, tokens = story["first_token_ms"], story["usage"]["completion_tokens"]
    streamed_ms = 0 if first_ms is None else story["duration_ms"] - first_ms
    return {
        "story": story,
        "tokens_per_s": tokens * 1000 / streamed_ms if streamed_ms >= PACE_FROM_MS else None,
        "remedy": remedy(story["error_code"]) if story["error_code"] else None,
    }
