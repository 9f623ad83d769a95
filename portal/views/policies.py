"""The content policies of a tenant, or of the platform: what they are, their rules and versions, and a text to try them on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

from django.contrib import messages
from django.db.models import ProtectedError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _

from accounts.models import Tenant
from accounts.roles import Action
from gateway.config import policies
from gateway.models import ContentPolicy, ContentPolicyVersion
from gateway.policy.rules import Policy, RulesRefused, parse_rules
from gateway.policy.trial import Match, Trial, try_text
from portal import keyset
from portal.access import by
from portal.forms.policies import DeleteForm, PolicyForm, TrialForm, as_written
from portal.holders import held, may_here, url_of
from portal.policy_users import Users, users_of
from portal.rules_in_words import told

POST: Final = ("POST",)
READ_AND_POST: Final = ("GET", "HEAD", "POST")
VERSIONS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Piece:
    """Text with one fate: action "" passes as it is."""

    text: str
    action: str = ""
    told: str = ""


@held(Action.VIEW)
def index(request: HttpRequest, holder: Tenant | None) -> HttpResponse:
    rows = ContentPolicy.objects.filter(tenant=holder).select_related("published")
    page = keyset.page_of(request, rows, (keyset.Column("name"),))
    own = page.rows
    drafts = set(ContentPolicyVersion.objects.filter(policy__in=own, is_draft=True).values_list("policy_id", flat=True))
    users = users_of(holder, [policy.name for policy in own])
    listed = [(policy, policy.pk in drafts, users[policy.name]) for policy in own]
    return render(request, "portal/policies/list.html", _context(request, holder, policies=listed, page=page))


@held(Action.MANAGE_POLICIES, methods=READ_AND_POST)
def new(request: HttpRequest, holder: Tenant | None) -> HttpResponse:
    form = PolicyForm(request.POST or None, tenant=holder)
    if request.method == "POST" and form.is_valid():
        made = policies.create(
            holder, form.cleaned_data["name"], is_everywhere=form.cleaned_data["is_everywhere"], **by(request)
        )
        return redirect(url_of(holder, "policy_draft", made.name))
    return render(request, "portal/policies/new.html", _context(request, holder, form=form))


@held(Action.VIEW, methods=READ_AND_POST)
def show(request: HttpRequest, holder: Tenant | None, name: str) -> HttpResponse:
    """Its rules and versions; a POST tries a text, changes nothing and keeps nothing."""
    policy = policy_of(holder, name)
    draft = draft_of(policy)
    versions = [version for version in (draft, policy.published) if version is not None]  # what is being made is tried first
    form = TrialForm(request.POST or None, versions=versions)
    shown = policy.published or draft
    trial = _tried(policy, versions, form) if request.method == "POST" and form.is_valid() else None
    context = page_of(
        request,
        policy,
        shown=shown,
        rules=told(shown.rules) if shown else (),
        written=as_written(shown.rules) if shown else "",
        draft=draft,
        versions=policy.versions.filter(is_draft=False).order_by("-number")[:VERSIONS_SHOWN],
        form=form,
        trial=trial,
        pieces=pieces(form.cleaned_data["text"], trial.matches) if trial else (),
    )
    return render(request, "portal/policies/show.html", context)


@held(Action.MANAGE_POLICIES, methods=POST)
def publish(request: HttpRequest, holder: Tenant | None, name: str) -> HttpResponse:
    policy = policy_of(holder, name)
    done = _("Published: every call that begins from now on is judged by it.")
    return _changed(request, policy, lambda: policies.publish(policy, **by(request)), done)


@held(Action.MANAGE_POLICIES, methods=POST)
def discard(request: HttpRequest, holder: Tenant | None, name: str) -> HttpResponse:
    policy = policy_of(holder, name)
    return _changed(request, policy, lambda: policies.discard_draft(policy, **by(request)), _("The draft is gone."))


@held(Action.MANAGE_POLICIES, methods=READ_AND_POST)
def everywhere(request: HttpRequest, holder: Tenant | None, name: str) -> HttpResponse:
    """Turn over whether it applies unnamed: what comes of it first, then the button."""
    policy = policy_of(holder, name)
    if request.method == "POST":
        wanted = request.POST.get("everywhere") == "on"
        done = _("It applies to every call.") if wanted else _("It applies where an alias or a key names it.")
        return _changed(request, policy, lambda: policies.set_everywhere(policy, wanted, **by(request)), done)
    tenants = Tenant.objects.count() if holder is None else 1
    return render(request, "portal/policies/everywhere.html", page_of(request, policy, tenants=tenants))


@held(Action.MANAGE_POLICIES, methods=POST)
def roll_back(request: HttpRequest, holder: Tenant | None, name: str, number: int) -> HttpResponse:
    policy = policy_of(holder, name)
    done = _("Version %(number)d is in force again.") % {"number": number}
    return _changed(request, policy, lambda: policies.roll_back(policy, number, **by(request)), done)


@held(Action.MANAGE_POLICIES, methods=READ_AND_POST)
def delete(request: HttpRequest, holder: Tenant | None, name: str) -> HttpResponse:
    policy = policy_of(holder, name)
    form = DeleteForm(request.POST or None, policy=policy)
    if request.method == "POST" and form.is_valid():
        try:
            policies.delete(policy, **by(request))
        except ProtectedError as error:
            form.add_error(None, str(error.args[0]))
        else:
            messages.success(request, _("%(name)s is deleted.") % {"name": name})
            return redirect(url_of(holder, "policies"))
    return render(request, "portal/policies/delete.html", page_of(request, policy, form=form))


def policy_of(holder: Tenant | None, name: str) -> ContentPolicy:
    return get_object_or_404(ContentPolicy.objects.select_related("published", "tenant"), tenant=holder, name=name)


def draft_of(policy: ContentPolicy) -> ContentPolicyVersion | None:
    return policy.versions.filter(is_draft=True).first()


def page_of(request: HttpRequest, policy: ContentPolicy, **more: Any) -> dict[str, Any]:
    """What every page of one policy says."""
    users: Users = users_of(policy.tenant, [policy.name])[policy.name]
    return _context(request, policy.tenant, policy=policy, users=users, **more)


def pieces(text: str, matches: Sequence[Match]) -> list[Piece]:
    """The text with what was found marked; where matches overlap the first one counts, and what it leaves of the next."""
    found: list[Piece] = []
    at = 0
    for match in matches:
        start, end = match.start, match.end if match.end is not None else len(text)
        if start is None or end <= at:
            continue
        start = max(start, at)
        found += [Piece(text[at:start]), Piece(text[start:end], match.action, match.rule)]
        at = end
    return [piece for piece in (*found, Piece(text[at:])) if piece.text]


def _context(request: HttpRequest, holder: Tenant | None, **more: Any) -> dict[str, Any]:
    return {
        "tenant": holder,
        "holder": holder.name if holder else _("The platform"),
        "zone": ZoneInfo(holder.time_zone) if holder else None,
        "may_manage": may_here(request, holder, Action.MANAGE_POLICIES),
        **more,
    }


def _changed(request: HttpRequest, policy: ContentPolicy, change: Callable[[], object], done: str) -> HttpResponse:
    try:
        change()
    except policies.PolicyError as error:
        messages.error(request, str(error))
    except RulesRefused:
        messages.error(request, _("This release does not take these rules any more. Mend them in a draft."))
    else:
        messages.success(request, done)
    return redirect(url_of(policy.tenant, "policy", policy.name))


def _tried(policy: ContentPolicy, versions: Sequence[ContentPolicyVersion], form: TrialForm) -> Trial:
    version = next(version for version in versions if version.number == form.cleaned_data["version"])
    judged = Policy(policy.name, version.number, parse_rules(version.rules, is_published=True))
    return try_text([judged], form.cleaned_data["text"], form.cleaned_data["surface"])
