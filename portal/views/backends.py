"""The backends, for those who run the platform: how they are, one more, the switch that takes one out of service."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters

from gateway.config import backends, draining
from gateway.config.revision import InUse
from gateway.models import Backend, Deployment
from portal import editing, keyset
from portal.access import by, operator, person
from portal.backend_state import BackendState, seen, states, with_pools
from portal.backend_trial import Tried, try_backend
from portal.forms.backends import BackendFilter, BackendForm

POST: Final = ("POST",)
READ_AND_POST: Final = ("GET", "HEAD", "POST")
ORDER: Final = (keyset.Column("name"),)


@dataclass(frozen=True, slots=True)
class Reach:
    """A deployment that has the backend in its pool. others: how many more take calls. next_way: who else would."""

    deployment: Deployment
    others: int
    next_way: Deployment | None


@operator()
def index(request: HttpRequest) -> HttpResponse:
    return render(request, "portal/backends/list.html", _listed(request))


@operator()
def live(request: HttpRequest) -> HttpResponse:
    """The part of the list that renews itself."""
    return render(request, "portal/backends/_list.html", _listed(request))


@operator()
def show(request: HttpRequest, name: str) -> HttpResponse:
    row = _backend(name)
    return render(request, "portal/backends/show.html", {**_one(row), "reaches": _reaches(row)})


@operator()
def live_one(request: HttpRequest, name: str) -> HttpResponse:
    return render(request, "portal/backends/_state.html", _one(_backend(name)))


@operator(methods=READ_AND_POST)
@sensitive_post_parameters("credential", "kept")
def new(request: HttpRequest) -> HttpResponse:
    """A POST of the button `try` tests and saves nothing."""
    form = BackendForm(request.POST or None, user=person(request))
    if request.method != "POST" or not form.is_valid():
        return _form(request, form)
    if "try" in request.POST:
        return _form(request, form, tried=try_backend(form.instance.url, form.credential_to_send))
    said = form.cleaned_data
    try:
        made = backends.create(said["name"], form.instance.url, form.credential_to_send, **by(request))
    except ValidationError as error:
        form.add_error(None, error.messages)
        return _form(request, form)
    messages.success(request, _("Added. It gets calls once a deployment has it in its pool."))
    return redirect("admin_backend", made.name)


@operator(methods=READ_AND_POST)
@sensitive_post_parameters("credential", "kept")
def edit(request: HttpRequest, name: str) -> HttpResponse:
    if "try" in request.POST:  # it takes seconds, and writes nothing
        return _edit(request, name)
    with editing.alone(request, f"backend {name}"):
        return _edit(request, name)


@sensitive_post_parameters("credential", "kept")
def _edit(request: HttpRequest, name: str) -> HttpResponse:
    row = _backend(name)
    form = BackendForm(request.POST or None, instance=_backend(name), user=person(request))
    # Another credential counts as another save, though nothing of it is shown.
    overtaken = editing.of_forms(request, f"backend {row}", None, [form], whole=row.credential_ciphertext)
    if request.method != "POST" or not form.is_valid():
        return _form(request, form, row, edit=overtaken)
    if "try" in request.POST:
        return _form(request, form, row, tried=_tried(form), edit=overtaken)
    if overtaken.is_overtaken:
        return _form(request, form, row, edit=overtaken)
    try:
        changed = backends.change(row, url=form.instance.url, credential=form.wanted, **by(request))
    except ValidationError as error:
        form.add_error(None, error.messages)
        return _form(request, form, row, edit=overtaken)
    done = _("Changed: it counts for every call that begins from now on.") if changed else _("Nothing was changed.")
    messages.success(request, done)
    return redirect("admin_backend", row.name)


@operator(methods=POST)
def drain(request: HttpRequest, name: str) -> HttpResponse:
    done = _("It drains: no new calls go there, and those it has come to their end.")
    return _switched(request, name, draining.drain, done)


@operator(methods=POST)
def resume(request: HttpRequest, name: str) -> HttpResponse:
    return _switched(request, name, draining.resume, _("It gets calls again."))


@operator(methods=READ_AND_POST)
def delete(request: HttpRequest, name: str) -> HttpResponse:
    row = _backend(name)
    if request.method == "POST":
        try:
            backends.delete(row, **by(request))
        except InUse as error:
            messages.error(request, str(error))
            return redirect("admin_backend_delete", row.name)
        messages.success(request, _("Deleted: %(name)s.") % {"name": row.name})
        return redirect("admin_backends")
    return render(request, "portal/backends/delete.html", {"backend": row, "pools": row.pool_names})


def _listed(request: HttpRequest) -> dict[str, Any]:
    form = BackendFilter(request.GET)
    form.is_valid()
    page = keyset.page_of(request, form.narrowed(with_pools(Backend.objects.all())), ORDER)
    told = seen()
    return {
        "form": form,
        "is_filtered": form.is_narrow,
        "page": page,
        "states": states(page.rows, told),
        "is_untold": told is None,
        "workers": told.workers if told else 0,
    }


def _one(row: Backend) -> dict[str, Any]:
    told = seen()
    state: BackendState = states([row], told)[0]
    is_on_its_way = row.is_draining and not draining.is_published()
    return {"backend": row, "state": state, "is_untold": told is None, "is_on_its_way": is_on_its_way}


def _backend(name: str) -> Any:
    return get_object_or_404(with_pools(Backend.objects.all()), name=name)


def _reaches(row: Backend) -> list[Reach]:
    pools = Deployment.objects.filter(members__backend=row).select_related("fallback").prefetch_related("members__backend")
    return [
        Reach(
            deployment,
            sum(not m.backend.is_draining and m.backend_id != row.pk for m in deployment.members.all()),
            deployment.fallback,
        )
        for deployment in pools
    ]


def _tried(form: BackendForm) -> list[Tried]:
    try:
        return try_backend(form.instance.url, form.credential_to_send)
    except ValueError:
        told = _("The one that is held cannot be decrypted.")
        return [Tried(_("Credential"), "error", told, _("Put its key back into SEKISHO_FIELD_KEYS, or type it again."))]


def _form(
    request: HttpRequest,
    form: BackendForm,
    row: Backend | None = None,
    *,
    tried: Sequence[Tried] = (),
    edit: editing.Edit | None = None,
) -> HttpResponse:
    context = {
        "form": form,
        "backend": row,
        "tried": tried,
        "edit": edit,
        "zone": "UTC",
        "is_sound": bool(tried) and all(result.level != "error" for result in tried),
    }
    return render(request, "portal/backends/form.html", context)


def _switched(request: HttpRequest, name: str, switch: Callable[..., bool], done: str) -> HttpResponse:
    row = _backend(name)
    messages.success(request, done if switch(row, **by(request)) else _("It was so already."))
    return redirect("admin_backend", row.name)
