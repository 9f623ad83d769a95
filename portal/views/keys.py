"""The API keys of a tenant. The text of a key is in one answer alone, that of the POST that made it: it is never in a URL,
a session or a message, and no page behind sign-in is kept by a cache (portal/access.py).
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.db.models import Q, Value
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_variables

from accounts import issuing
from accounts.keys import PATTERN
from accounts.models import ApiKey, Tenant
from accounts.querysets import ApiKeyQuerySet
from accounts.roles import Action
from accounts.scopes import CHAT
from gateway.config import limit_changes
from gateway.models import Limit, ModelAlias
from portal import editing, keyset, snippets
from portal.access import by, may, require
from portal.forms.keys import EXPIRY_DEFAULT, TAIL_LENGTH, FilterForm, RevokeForm, RotateForm, TermsForm
from portal.forms.limits import LimitsForm
from portal.keyset import FAR_OFF, LONG_AGO, Column
from portal.last_use import freshen
from portal.standing import Standing, standings, standings_of, tightest

READ_AND_POST: Final = ("GET", "HEAD", "POST")
_ID: Final = Column("pk", keyset.identity)
# Revoked keys last: they are history. Keys that were never used stand before all uses, those without an end after all ends.
ORDERS: Final = keyset.orders(
    (Column("gone_at", keyset.moment, is_descending=True),),
    name=(Column("name"), _ID),
    used=(Column("used_at", keyset.moment), _ID),
    ends=(Column("ends_at", keyset.moment), _ID),
    made=(Column("created_at", keyset.moment), _ID),
)


@require(Action.VIEW)
def index(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    if PATTERN.search(request.GET.get("q", "")):
        told = _("That was the text of a key, and now it stands in your browser's history. Search by its last four characters.")
        messages.warning(request, told)
        return redirect("keys", tenant.slug)
    form = FilterForm(request.GET)
    form.is_valid()
    q, state = form.cleaned_data.get("q", ""), form.cleaned_data.get("state", "")
    rows = ApiKey.objects.for_tenant(tenant).filter(is_playground=state == "playground").select_related("created_by")
    if q:
        rows = rows.filter(Q(name__icontains=q) | (Q(hint__iendswith=q) if len(q) >= TAIL_LENGTH else Q()))
    if state:
        rows = rows.in_state(state)
    sort = form.cleaned_data.get("sort") or "name"
    page = keyset.page_of(request, annotated(rows).prefetch_related("limits"), ORDERS[sort])
    context = {
        "tenant": tenant,
        "form": form,
        "is_filtered": bool(q or state),
        "page": page,
        "sort": sort,
        "rows": _rows(tenant, page.rows),
        "may_manage": may(request, tenant, Action.MANAGE_KEYS),
    }
    return render(request, "portal/keys/list.html", context)


@require(Action.MANAGE_KEYS, methods=READ_AND_POST)
@sensitive_variables("text")
def new(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    """A POST that only asks for the words makes nothing."""
    form = TermsForm(request.POST or None, tenant=tenant, binds_policies=may(request, tenant, Action.MANAGE_POLICIES))
    limited = _limits_form(request, tenant)
    if request.method == "POST" and form.is_valid() & limited.is_valid() and "say" not in request.POST:
        try:
            key, text = limit_changes.issue_key(tenant, form.terms, limited.wanted, **by(request))
        except issuing.IssuingError as error:
            form.refuse(error)
        else:
            return _handed_over(request, key, text)
    begun = issuing.Terms("", expires_at=timezone.now() + timedelta(days=int(EXPIRY_DEFAULT)))
    return _form(request, tenant, form, limited, {"said": begun})


@require(Action.VIEW)
def show(request: HttpRequest, tenant: Tenant, pk: UUID) -> HttpResponse:
    key = _key(tenant, pk)
    freshen(key, _old(key))
    context = {
        "tenant": tenant,
        "key": key,
        "old": _old(key),
        "standings": standings(tenant, list(key.limits.order_by("name"))),
        "may_manage": may(request, tenant, Action.MANAGE_KEYS),
    }
    return render(request, "portal/keys/show.html", context)


@require(Action.MANAGE_KEYS, methods=READ_AND_POST)
def edit(request: HttpRequest, tenant: Tenant, pk: UUID) -> HttpResponse:
    with editing.alone(request, f"key {pk}"):
        return _edit(request, tenant, pk)


def _edit(request: HttpRequest, tenant: Tenant, pk: UUID) -> HttpResponse:
    key = _key(tenant, pk)
    if not key.is_revisable:
        messages.error(request, _("A key that is revoked or rotated keeps its terms."))
        return redirect("key", tenant.slug, key.pk)
    binds_policies = may(request, tenant, Action.MANAGE_POLICIES)
    form = TermsForm(request.POST or None, tenant=tenant, key=key, binds_policies=binds_policies)
    limited = _limits_form(request, tenant, key)
    overtaken = editing.of_forms(request, f"key {key}", tenant, [form, limited])
    is_sound = request.method == "POST" and form.is_valid() & limited.is_valid()
    if is_sound and "say" not in request.POST and not overtaken.is_overtaken:
        try:
            changed = limit_changes.revise_key(key, form.terms, limited.wanted, **by(request))
        except issuing.IssuingError as error:
            form.refuse(error)
        else:
            done = _("Changed: it counts for every call that begins from now on.") if changed else _("Nothing was changed.")
            messages.success(request, done)
            return redirect("key", tenant.slug, key.pk)
    return _form(request, tenant, form, limited, {"said": key, "key": key, "edit": overtaken, "zone": tenant.zone})


@require(Action.MANAGE_KEYS, methods=READ_AND_POST)
@sensitive_variables("text")
def rotate(request: HttpRequest, tenant: Tenant, pk: UUID) -> HttpResponse:
    key = _key(tenant, pk)
    form = RotateForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            made, text = issuing.rotate(key, overlap=timedelta(hours=form.cleaned_data["overlap"]), **by(request))
        except issuing.IssuingError as error:
            form.add_error(None, error.message)
        else:
            return _handed_over(request, made, text, old=key)
    freshen(key)
    return render(request, "portal/keys/rotate.html", {"tenant": tenant, "key": key, "form": form})


@require(Action.MANAGE_KEYS, methods=READ_AND_POST)
def revoke(request: HttpRequest, tenant: Tenant, pk: UUID) -> HttpResponse:
    key = _key(tenant, pk)
    form = RevokeForm(request.POST or None, key=key)
    if request.method == "POST" and form.is_valid():
        done = issuing.revoke(key, **by(request))
        told = _("Revoked: this key is refused from now on.") if done else _("This key was revoked before.")
        messages.success(request, told)
        return redirect("key", tenant.slug, key.pk)
    freshen(key)
    return render(request, "portal/keys/revoke.html", {"tenant": tenant, "key": key, "form": form})


@require(Action.VIEW)
def first_use(request: HttpRequest, tenant: Tenant, pk: UUID) -> HttpResponse:
    """Was the key used? And when was the one it replaces last used? A part of the page on which the key is shown once."""
    key = _key(tenant, pk)
    freshen(key, _old(key))
    return render(request, "portal/keys/_first_use.html", {"tenant": tenant, "key": key, "old": _old(key)})


def _form(request: HttpRequest, tenant: Tenant, form: TermsForm, limited: LimitsForm, context: dict[str, Any]) -> HttpResponse:
    """said: the terms the form begins with; in their place those it says now, None while it does not say any."""
    context["said_limits"] = context["key"].limits.order_by("name") if "key" in context else ()
    if form.is_bound:
        context["said"], context["said_limits"] = None, ()
        if form.said and limited.is_valid():
            context["said"], context["said_limits"] = form.said, limited.wanted
    return render(request, "portal/keys/form.html", {"tenant": tenant, "form": form, "limited": limited, **context})


def _limits_form(request: HttpRequest, tenant: Tenant, key: ApiKey | None = None) -> LimitsForm:
    """A key's own limits: never above the tenant's. Who may not set them sends the form without them."""
    held = [limit.configured for limit in key.limits.all()] if key else []
    ceilings = {limit.name: limit.max for limit in tenant.limits.all() if limit.mode == Limit.Mode.ENFORCE}
    is_editable = may(request, tenant, Action.MANAGE_SETTINGS)
    return LimitsForm(request.POST or None, held=held, ceilings=ceilings, is_editable=is_editable)


def annotated(rows: ApiKeyQuerySet) -> ApiKeyQuerySet:
    """With what ORDERS are made of."""
    return rows.annotate(
        gone_at=Coalesce("revoked_at", Value(FAR_OFF)),
        used_at=Coalesce("last_used_at", Value(LONG_AGO)),
        ends_at=Coalesce("expires_at", Value(FAR_OFF)),
    )


def _rows(tenant: Tenant, keys: Sequence[ApiKey]) -> list[tuple[ApiKey, Standing | None]]:
    """Each key, and its limit that is used most."""
    limits = [(tenant, list(key.limits.all())) for key in keys]
    return [(key, tightest(told)) for key, told in zip(keys, standings_of(limits), strict=True)]


def _old(key: ApiKey) -> ApiKey | None:
    """The key it replaces, while that one still works."""
    old: ApiKey | None = getattr(key, "predecessor", None)
    return old if old is not None and old.state == "retiring" else None


@sensitive_variables("text")
def _handed_over(request: HttpRequest, key: ApiKey, text: str, *, old: ApiKey | None = None) -> HttpResponse:
    url = snippets.base_url(settings.GATEWAY_PUBLIC_URL)
    freshen(old)
    names = ModelAlias.objects.filter(tenant=key.tenant).order_by("name").values_list("name", flat=True)
    alias = next((name for name in names if key.aliases is None or name in key.aliases), None) if CHAT in key.scopes else None
    context: dict[str, Any] = {"tenant": key.tenant, "key": key, "text": text, "old": old, "base_url": url}
    if alias is not None:
        context |= snippets.every(url, alias, _("Hello!"), key=text)
    return render(request, "portal/keys/made.html", context)


def _key(tenant: Tenant, pk: UUID) -> ApiKey:
    rows = ApiKey.objects.for_tenant(tenant).select_related("tenant", "created_by", "successor", "predecessor")
    return get_object_or_404(rows, pk=pk)
