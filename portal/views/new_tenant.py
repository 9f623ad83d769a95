"""A new tenant, step by step. What was said is kept in the session; nothing is written before the last step's button."""

from typing import Any, Final

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _

from accounts.members import MemberError
from accounts.tenants import TenantError
from gateway.config import founding
from gateway.models import Deployment
from portal import snippets
from portal.access import by, operator
from portal.forms.new_tenant import AliasesForm, DetailsForm, OwnerForm, StartLimitsForm

READ_AND_POST: Final = ("GET", "HEAD", "POST")
SESSION_KEY: Final = "new_tenant"
STEPS: Final = ("details", "aliases", "limits", "owner")
SUMMARY: Final = "summary"


@operator(methods=READ_AND_POST)
def step(request: HttpRequest, name: str = STEPS[0]) -> HttpResponse:
    if request.method == "POST" and "discard" in request.POST:
        request.session.pop(SESSION_KEY, None)
        return redirect("admin_tenants")
    if name == SUMMARY:
        return _summary(request)
    if name not in STEPS:
        raise Http404
    form = _form(name, request.POST if request.method == "POST" else _kept(request, name))
    if request.method == "POST" and form.is_valid():
        said = {field: values for field, values in request.POST.lists() if field != "csrfmiddlewaretoken"}
        request.session[SESSION_KEY] = {**request.session.get(SESSION_KEY, {}), name: said}
        return redirect("admin_tenant_new_step", _after(name))
    context = {"form": form, "step": name, "steps": _steps(name), "before": _before(name)}
    return render(request, "portal/new_tenant/step.html", context)


def _summary(request: HttpRequest) -> HttpResponse:
    forms = {name: _form(name, _kept(request, name)) for name in STEPS}
    for name, form in forms.items():
        if not form.is_valid():
            return redirect("admin_tenant_new_step", name)
    wanted = founding.Founding(
        facts=forms["details"].cleaned_data,
        aliases=forms["aliases"].wanted,
        wanted=forms["limits"].wanted,
        plan=forms["limits"].plan,
        owner=forms["owner"].cleaned_data["email"],
    )
    if request.method == "POST":
        try:
            tenant, token = founding.found(wanted, **by(request))
        except TenantError as error:
            return _back_to(request, "details", error.message)
        except founding.AliasRefused as error:
            return _back_to(request, "aliases", str(error))
        except MemberError as error:
            return _back_to(request, "owner", error.message)
        request.session.pop(SESSION_KEY, None)
        link = request.build_absolute_uri(reverse("invite", args=[token])) if token else ""
        url = snippets.base_url(settings.GATEWAY_PUBLIC_URL)
        context = {"shown": tenant, "link": link, "owner": wanted.owner, "base_url": url}
        return render(request, "portal/new_tenant/made.html", context)
    limits = wanted.plan.limits.all() if wanted.plan else wanted.wanted
    context = {"founding": wanted, "limits": limits, "step": SUMMARY, "steps": _steps(SUMMARY), "before": STEPS[-1]}
    return render(request, "portal/new_tenant/summary.html", context)


def _form(name: str, data: QueryDict | None) -> Any:
    if name == "details":
        return DetailsForm(data)
    if name == "aliases":
        names = list(Deployment.objects.values_list("name", flat=True))
        return AliasesForm(data, form_kwargs={"names": names})
    return StartLimitsForm(data) if name == "limits" else OwnerForm(data)


def _kept(request: HttpRequest, name: str) -> QueryDict | None:
    said = request.session.get(SESSION_KEY, {}).get(name)
    if said is None:
        return None
    data = QueryDict(mutable=True)
    for field, values in said.items():
        data.setlist(field, values)
    return data


def _back_to(request: HttpRequest, name: str, message: str) -> HttpResponse:
    messages.error(request, message)
    return redirect("admin_tenant_new_step", name)


def _after(name: str) -> str:
    return (*STEPS, SUMMARY)[STEPS.index(name) + 1]


def _before(name: str) -> str | None:
    at = STEPS.index(name)
    return STEPS[at - 1] if at else None


def _steps(current: str) -> list[tuple[str, str, bool]]:
    """Each step, its words, and whether it is this one."""
    words = {
        "details": _("Details"),
        "aliases": _("Aliases"),
        "limits": _("Limits"),
        "owner": _("First owner"),
        SUMMARY: _("Summary"),
    }
    return [(name, words[name], name == current) for name in (*STEPS, SUMMARY)]
