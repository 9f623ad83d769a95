"""What a tenant decides about itself, and beside it what only operators decide."""

from typing import Final

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import tenant_settings
from accounts.models import Tenant
from accounts.roles import Action
from portal import editing
from portal.access import by, require
from portal.forms.tenant_settings import SettingsForm, offsets

READ_AND_POST: Final = ("GET", "HEAD", "POST")


@require(Action.MANAGE_SETTINGS, methods=READ_AND_POST)
def edit(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    with editing.alone(request, f"tenant {tenant.pk}"):
        return _edit(request, Tenant.objects.get(pk=tenant.pk))


def _edit(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    form = SettingsForm(request.POST or None, tenant=tenant)
    overtaken = editing.of_forms(request, f"tenant {tenant}", tenant, [form])
    if request.method == "POST" and form.is_valid() and not overtaken.is_overtaken:
        try:
            changed = tenant_settings.change(tenant, form.settings, **by(request))
        except ValidationError as error:
            form.add_error(None, error)
        else:
            told = _("Changed: it counts for every call that begins from now on.") if changed else _("Nothing was changed.")
            messages.success(request, told)
            return redirect("settings", tenant.slug)
    context = {"tenant": tenant, "form": form, "edit": overtaken, "zone": tenant.zone, "zones": offsets(timezone.now())}
    return render(request, "portal/settings/edit.html", context)
