"""The content policies of a tenant: what they are, their rules and versions, and a text to try them on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _

from accounts.models import ApiKey, Tenant
from accounts.roles import Action
from gateway.config import policies
from gateway.models import ContentPolicy, ContentPolicyVersion, ModelAlias
from gateway.policy.rules import Policy, RulesRefused, parse_rules
from gateway.policy.trial import Match, Trial, try_text
from portal.access import by, may, require
from portal.forms.policies import PolicyForm, RulesForm, TrialForm, as_written

POST: Final = ("POST",)
READ_AND_POST: Final = ("GET", "HEAD", "POST")
VERSIONS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Piece:
    """Text with one fate: action "" passes as it is."""

    text: str
    action: str = ""
    told: str = ""


@require(Action.VIEW)
def index(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    own = ContentPolicy.objects.filter(tenant=tenant).select_related("published").order_by("name")
    drafts = set(ContentPolicyVersion.objects.filter(policy__tenant=tenant, is_draft=True).values_list("policy_id", flat=True))
    users = _users(tenant)
    listed = [(policy, policy.pk in drafts, users.get(policy.name, [])) for policy in own]
    context = {"tenant": tenant, "policies": listed, "may_manage": may(request, tenant, Action.MANAGE_POLICIES)}
    return render(request, "portal/policies/list.html", context)


@require(Action.MANAGE_POLICIES, methods=READ_AND_POST)
def new(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    form = PolicyForm(request.POST or None, tenant=tenant)
    if request.method == "POST" and form.is_valid():
        made = policies.create(
            tenant, form.cleaned_data["name"], is_everywhere=form.cleaned_data["is_everywhere"], **by(request)
        )
        return redirect("policy_draft", tenant.slug, made.name)
    return render(request, "portal/policies/new.html", {"tenant": tenant, "form": form})


@require(Action.VIEW, methods=READ_AND_POST)
def show(request: HttpRequest, tenant: Tenant, name: str) -> HttpResponse:
    """Its rules and versions; a POST tries a text, changes nothing and keeps nothing."""
    policy = _policy(tenant, name)
    draft = _draft(policy)
    versions = [version for version in (draft, policy.published) if version is not None]  # what is being made is tried first
    form = TrialForm(request.POST or None, versions=versions, initial={"surface": "input.user"})
    shown = policy.published or draft
    trial = _tried(policy, versions, form) if request.method == "POST" and form.is_valid() else None
    context = {
        "tenant": tenant,
        "policy": policy,
        "shown": shown,
        "written": as_written(shown.rules) if shown else "",
        "draft": draft,
        "versions": policy.versions.filter(is_draft=False).order_by("-number")[:VERSIONS_SHOWN],
        "users": _users(tenant).get(policy.name, []),
        "form": form,
        "trial": trial,
        "pieces": _pieces(form.cleaned_data["text"], trial.matches) if trial else (),
        "may_manage": may(request, tenant, Action.MANAGE_POLICIES),
    }
    return render(request, "portal/policies/show.html", context)


@require(Action.MANAGE_POLICIES, methods=READ_AND_POST)
def edit(request: HttpRequest, tenant: Tenant, name: str) -> HttpResponse:
    """The draft: rules as text, kept once they are right."""
    policy = _policy(tenant, name)
    begun = _draft(policy) or policy.published
    form = RulesForm(request.POST or None, initial={"rules": as_written(begun.rules if begun else None)})
    if request.method == "POST" and form.is_valid():
        policies.save_draft(policy, form.parsed, **by(request))
        messages.success(request, _("The draft is kept. It judges no call before it is published."))
        return redirect("policy_draft", tenant.slug, policy.name)
    context = {"tenant": tenant, "policy": policy, "form": form, "draft": _draft(policy)}
    return render(request, "portal/policies/draft.html", context)


@require(Action.MANAGE_POLICIES, methods=POST)
def publish(request: HttpRequest, tenant: Tenant, name: str) -> HttpResponse:
    policy = _policy(tenant, name)
    done = _("Published: every call that begins from now on is judged by it.")
    return _changed(request, policy, lambda: policies.publish(policy, **by(request)), done)


@require(Action.MANAGE_POLICIES, methods=POST)
def discard(request: HttpRequest, tenant: Tenant, name: str) -> HttpResponse:
    policy = _policy(tenant, name)
    return _changed(request, policy, lambda: policies.discard_draft(policy, **by(request)), _("The draft is gone."))


@require(Action.MANAGE_POLICIES, methods=POST)
def roll_back(request: HttpRequest, tenant: Tenant, name: str, number: int) -> HttpResponse:
    policy = _policy(tenant, name)
    done = _("Version %(number)d is in force again.") % {"number": number}
    return _changed(request, policy, lambda: policies.roll_back(policy, number, **by(request)), done)


def _changed(request: HttpRequest, policy: ContentPolicy, change: Callable[[], object], done: str) -> HttpResponse:
    try:
        change()
    except policies.PolicyError as error:
        messages.error(request, str(error))
    except RulesRefused:
        messages.error(request, _("This release does not take these rules any more. Mend them in a draft."))
    else:
        messages.success(request, done)
    return redirect("policy", policy.tenant.slug if policy.tenant else "", policy.name)


def _policy(tenant: Tenant, name: str) -> ContentPolicy:
    return get_object_or_404(ContentPolicy.objects.select_related("published", "tenant"), tenant=tenant, name=name)


def _draft(policy: ContentPolicy) -> ContentPolicyVersion | None:
    return policy.versions.filter(is_draft=True).first()


def _users(tenant: Tenant) -> dict[str, list[str]]:
    """Which aliases and keys name a policy."""
    users: dict[str, list[str]] = {}
    for alias in ModelAlias.objects.filter(tenant=tenant).only("name", "policies"):
        for name in alias.policies:
            users.setdefault(name, []).append(alias.name)
    for key in ApiKey.objects.for_tenant(tenant).filter(revoked_at=None).only("name", "policies"):
        for name in key.policies:
            users.setdefault(name, []).append(key.name)
    return users


def _tried(policy: ContentPolicy, versions: Sequence[ContentPolicyVersion], form: TrialForm) -> Trial:
    version = next(version for version in versions if version.number == form.cleaned_data["version"])
    judged = Policy(policy.name, version.number, parse_rules(version.rules, is_published=True))
    return try_text([judged], form.cleaned_data["text"], form.cleaned_data["surface"])


def _pieces(text: str, matches: Sequence[Match]) -> list[Piece]:
    """The text with what was found marked; where matches overlap the first one counts, and what it leaves of the next."""
    pieces: list[Piece] = []
    at = 0
    for match in matches:
        start, end = match.start, match.end if match.end is not None else len(text)
        if start is None or end <= at:
            continue
        start = max(start, at)
        pieces += [Piece(text[at:start]), Piece(text[start:end], match.action, match.rule)]
        at = end
    return [piece for piece in (*pieces, Piece(text[at:])) if piece.text]
