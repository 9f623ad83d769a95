"""Which usage is shown: of what time, of which calls, in what measure, by what. All that is asked stands in the URL."""

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from django import forms
from django.core.exceptions import ValidationError
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import ApiKey, Tenant
from gateway.models import ModelAlias
from portal.forms.menus import Menu
from portal.measures import MEASURES
from portal.wording import ENDINGS
from usage.history import Wanted
from usage.labels import KINDS
from usage.retention import MINUTES_KEPT_DAYS
from usage.series import Asked, Dimension
from usage.spans import Span, at, floor_s, next_s

OFFERED_MOST: Final = 100  # more than these are asked for by name
KEYS_MOST: Final = 200
RANGES: Final[dict[str, tuple[Promise, Span, int]]] = {
    "1h": (gettext_lazy("1 hour"), "minute", 60),
    "24h": (gettext_lazy("24 hours"), "hour", 24),
    "7d": (gettext_lazy("7 days"), "hour", 168),
    "30d": (gettext_lazy("30 days"), "day", 30),
}
RANGE_DEFAULT: Final = "24h"
GROUPS: Final[dict[Dimension, Promise]] = {
    "alias": gettext_lazy("Alias"),
    "key": gettext_lazy("Key"),
    "ending": gettext_lazy("Outcome"),
    "status": gettext_lazy("HTTP status"),
    "stream": gettext_lazy("Answer"),
    "end_user": gettext_lazy("End user (label)"),
    "tag": gettext_lazy("Metadata"),
}
GROUPS_OF_ALL: Final[dict[Dimension, Promise]] = {
    "tenant": gettext_lazy("Tenant"),
    "alias": gettext_lazy("Alias"),
    "backend": gettext_lazy("Backend"),
    "ending": gettext_lazy("Outcome"),
    "status": gettext_lazy("HTTP status"),
    "stream": gettext_lazy("Answer"),
}
COMPARISONS: Final = {
    "": gettext_lazy("Nothing"),
    "previous": gettext_lazy("The time just before"),
    "weekdays": gettext_lazy("The same weekdays before"),
}
# What totals by end user and tag do not know: see usage.labels.
NOT_OF_LABELS: Final = ("concurrency", "first_p50", "first_p95")
_PLAIN: Final[tuple[Dimension, ...]] = ("alias", "ending", "status", "stream", "backend")  # fields that say the value itself
_FORMAT: Final = "%Y-%m-%dT%H:%M"
_YEARS: Final = range(2000, 2200)  # far from the ends of the calendar, where time zones overflow


@dataclass(frozen=True, slots=True)
class Period:
    """start, end: aware, on the edges of buckets of `span`, by the clock of their zone."""

    start: datetime
    end: datetime
    span: Span

    @property
    def earlier(self) -> "Period":
        """As long a time just before."""
        return self._shifted(self.end.replace(tzinfo=None) - self.start.replace(tzinfo=None))

    @property
    def weekdays_before(self) -> "Period":
        """The same weekdays and hours, as few weeks before as do not overlap."""
        length = self.end.replace(tzinfo=None) - self.start.replace(tzinfo=None)
        return self._shifted(timedelta(weeks=max(1, -(-length // timedelta(weeks=1)))))

    def _shifted(self, back: timedelta) -> "Period":
        # By the clock on the wall: 09:00 stays 09:00 where summer time began in between.
        return Period(self.start - back, self.end - back, self.span)


class _Moment(forms.Field):
    """A local time of the zone it is given; None for nothing."""

    widget = forms.DateTimeInput(format=_FORMAT, attrs={"type": "datetime-local"})

    def __init__(self, label: Any, zone: ZoneInfo) -> None:
        super().__init__(label=label, required=False)
        self._zone = zone

    def to_python(self, value: Any) -> datetime | None:
        if not value:
            return None
        try:
            found = datetime.fromisoformat(str(value).strip())
        except ValueError:
            raise ValidationError(_("This is no time; write it like 2026-11-21T09:00.")) from None
        if found.year not in _YEARS:
            raise ValidationError(_("Take a year from 2000 to 2199."))
        return (found.replace(tzinfo=self._zone) if found.tzinfo is None else found).astimezone(self._zone)


class PeriodFilter(forms.Form):
    """range: a preset, or "custom", from `from` until `to`; a URL with those alone means custom too."""

    def __init__(self, *args: Any, zone: ZoneInfo, now: datetime, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.zone, self._now = zone, now
        ranges = [*((name, label) for name, (label, _span, _count) in RANGES.items()), ("custom", _("From – to"))]
        self.fields["range"] = _choice(_("Period"), ranges)
        self.fields["from"] = _Moment(_("From"), zone)
        self.fields["to"] = _Moment(_("Until"), zone)
        if self.is_bound:
            asked = dict(self.data.items())
            if not asked.get("range"):
                asked["range"] = "custom" if asked.get("from") or asked.get("to") else RANGE_DEFAULT
            self.data = asked

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors and cleaned["range"] == "custom":
            end = cleaned.get("to") or self._now.astimezone(self.zone)
            start = cleaned.get("from") or end - timedelta(days=1)
            if end <= start:
                raise ValidationError({"to": _("The end is not after the beginning. Take a later end.")})
            if end - start > timedelta(days=3660):
                raise ValidationError({"from": _("This is more than ten years. Take a later beginning.")})
            cleaned["period"] = self._custom(start, end)
        elif not self.errors:
            cleaned["period"] = preset(cleaned["range"], self.zone, self._now)
        return cleaned

    @property
    def period(self) -> Period:
        """Once it is valid."""
        found: Period = self.cleaned_data["period"]
        return found

    def _custom(self, start: datetime, end: datetime) -> Period:
        length, kept = end - start, self._now - timedelta(days=MINUTES_KEPT_DAYS - 1)
        span: Span = "month"
        if length <= timedelta(hours=3) and start >= kept:
            span = "minute"
        elif length <= timedelta(days=10):
            span = "hour"
        elif length <= timedelta(days=400):
            span = "day"
        first_s, last_s = floor_s(span, start.timestamp(), self.zone), floor_s(span, end.timestamp(), self.zone)
        if last_s < end.timestamp():
            last_s = next_s(span, last_s, self.zone)
        return Period(at(first_s).astimezone(self.zone), at(last_s).astimezone(self.zone), span)


class UsageFilter(PeriodFilter):
    """Of one tenant. key: an id, or where there are many keys a part of the name."""

    groups = GROUPS

    def __init__(self, *args: Any, tenant: Tenant | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tenant = tenant
        self._add_subjects()
        self.fields["ending"] = _choice(_("Outcome"), [("", _("All")), *((n, w) for n, w in ENDINGS.items() if n)])
        self.fields["status"] = forms.IntegerField(
            label=_("HTTP status"),
            required=False,
            min_value=100,
            max_value=599,
            widget=forms.TextInput({"inputmode": "numeric"}),
        )
        streamed = [("", _("All")), ("yes", _("Streamed")), ("no", _("Whole"))]
        self.fields["stream"] = _choice(_("Answer"), streamed)
        self._add_labels()
        self._add_view()

    def _add_labels(self) -> None:
        self.fields["end_user"] = forms.CharField(label=_("End user (label)"), required=False, max_length=128)
        self.fields["tag"] = forms.CharField(label=_("Metadata (name=value)"), required=False, max_length=600)

    def _add_subjects(self) -> None:
        names = list(ModelAlias.objects.filter(tenant=self.tenant).order_by("name").values_list("name", flat=True))
        keys = list(ApiKey.objects.filter(tenant=self.tenant).values_list("pk", "name", "hint")[: OFFERED_MOST + 1])
        self.fields["alias"] = _named(_("Alias"), {name: name for name in names}, str(self.data.get("alias", "")))
        offered = {str(pk): f"{name} {hint}" for pk, name, hint in keys}
        self.fields["key"] = _named(_("Key"), offered, str(self.data.get("key", "")))
        if len(offered) > OFFERED_MOST:
            self.fields["key"].help_text = _("A part of its name, or its id.")

    def _add_view(self) -> None:
        measures = [(name, measure.label) for name, measure in MEASURES.items()]
        self.fields["metric"] = _choice(_("Figure"), measures, widget=forms.HiddenInput)
        self.fields["group"] = _choice(_("Split by"), [*self.groups.items(), ("none", _("Nothing"))])
        self.fields["sub"] = _choice(_("and by"), [("", _("Nothing")), *self._subgroups()])
        self.fields["compare"] = _choice(_("Compare with"), COMPARISONS.items())

    def clean_key(self) -> tuple[str, ...]:
        """Ids."""
        text = self.cleaned_data["key"]
        if not text:
            return ()
        if _UUID.fullmatch(text):
            return (str(UUID(text)),)
        found = ApiKey.objects.filter(tenant=self.tenant, name__icontains=text).values_list("pk", flat=True)[:KEYS_MOST]
        if not found:
            raise ValidationError(_("No key has such a name. Write a part of one, or an id."))
        return tuple(str(pk) for pk in found)

    def clean_tag(self) -> str:
        """name=value as totals know it."""
        text = self.cleaned_data["tag"]
        name, sign, value = text.partition("=")
        if text and not (sign and name.strip()):
            raise ValidationError(_("Write a name, =, and a value, like team=search."))
        return f"{name.strip()}={value.strip()}" if text else ""

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors and "metric" in self.fields:
            self._clean_labels(cleaned)
        return cleaned

    def _clean_labels(self, cleaned: dict[str, Any]) -> None:
        """Totals by end user and tag know of nothing else: what is asked of them must be so too."""
        kinds = [name for name in KINDS if cleaned.get(name)]
        if not kinds and cleaned["group"] not in KINDS:
            return
        asked = (*_PLAIN, "key", *(name for name in KINDS if name not in (kinds[:1] or [cleaned["group"]])))
        if others := [name for name in asked if cleaned.get(name)]:
            raise ValidationError({others[0]: _(
                "Totals by end user and by metadata are kept apart from all others."
                " Leave this empty, or look into the requests: they can be asked for all of it together."
            )})  # fmt: skip
        if cleaned["metric"] in NOT_OF_LABELS:
            raise ValidationError(_("This figure is not kept by end user and metadata. Choose another one."))
        period = cleaned["period"]
        if period.span == "minute":  # there are none by the minute
            cleaned["period"] = whole_hours(period, self.zone)

    def _subgroups(self) -> list[tuple[Dimension, Promise]]:
        return [(name, label) for name, label in self.groups.items() if name not in KINDS]

    @property
    def labels(self) -> str:
        """end_user or tag, where the totals of those are asked for, else nothing."""
        asked = self.cleaned_data
        return next((name for name in KINDS if asked.get(name) or asked.get("group") == name), "")

    @property
    def dimension(self) -> Dimension | None:
        chosen = self.cleaned_data["group"] or next(iter(self.groups))
        if self.labels and chosen != self.labels:
            return None
        return next((name for name in self.groups if name == chosen), None)

    @property
    def sub(self) -> Dimension | None:
        """The second dimension, where there is a first one and it is another."""
        chosen = self.cleaned_data.get("sub")
        if self.dimension is None or self.labels or chosen == self.dimension:
            return None
        return next((name for name in self.groups if name == chosen), None)

    @property
    def measure(self) -> str:
        return str(self.cleaned_data["metric"] or "requests")

    @property
    def compared(self) -> Period | None:
        """The time that is compared with; None where none is."""
        kind = self.cleaned_data["compare"]
        return {"previous": self.period.earlier, "weekdays": self.period.weekdays_before}.get(kind)

    @property
    def wanted(self) -> dict[Dimension, tuple[str, ...]]:
        asked = self.cleaned_data
        wanted: dict[Dimension, tuple[str, ...]] = {}
        for name in _PLAIN:
            if asked.get(name):
                wanted[name] = (str(asked[name]),)
        if asked.get("key"):
            wanted["key"] = asked["key"]
        if "metric" in self.fields:
            wanted |= {name: (asked[name],) for name in KINDS if asked.get(name)}
        return wanted

    def asked(self, tenant_ids: tuple[str, ...], period: Period | None = None) -> Asked:
        """Once it is valid. period: another one than the filter's."""
        of = period or self.period
        return Asked(tenant_ids, self.zone, of.start, of.end, of.span, self.wanted, is_own=self.tenant is not None)

    @property
    def is_narrow(self) -> bool:
        return bool(self.wanted or self.cleaned_data.get("tenant"))


class RequestFilter(UsageFilter):
    """Which calls of a tenant. tag: name=value of their metadata. id: one call, wherever it is."""

    def _add_view(self) -> None:
        self.fields["code"] = forms.CharField(label=_("Error code"), required=False, max_length=64)
        self.fields["id"] = forms.UUIDField(label=_("Request id"), required=False)

    @property
    def calls(self) -> Wanted:
        """Once it is valid."""
        asked, wanted = self.cleaned_data, self.wanted
        return Wanted(
            self.period.start,
            self.period.end,
            aliases=wanted.get("alias", ()),
            key_ids=wanted.get("key", ()),
            endings=wanted.get("ending", ()),
            status=asked["status"],
            code=asked["code"],
            stream={"yes": True, "no": False}.get(asked["stream"]),
            end_user=asked["end_user"],
            tag=json.dumps(dict([asked["tag"].split("=", 1)])) if asked["tag"] else "",
        )

    @property
    def is_narrow(self) -> bool:
        return bool(self.calls.conditions())


class AllUsageFilter(UsageFilter):
    """Over all tenants. tenant: a slug."""

    groups = GROUPS_OF_ALL

    def _add_labels(self) -> None:
        """They are a tenant's own, and mean nothing beside another's."""

    def _add_subjects(self) -> None:
        slugs = list(Tenant.objects.values_list("slug", "name")[: OFFERED_MOST + 1])
        self.fields["tenant"] = _named(_("Tenant"), dict(slugs), str(self.data.get("tenant", "")))
        self.fields["alias"] = forms.CharField(label=_("Alias"), required=False, max_length=128)
        self.fields["backend"] = forms.CharField(label=_("Backend"), required=False, max_length=128)

    def clean_tenant(self) -> Tenant | None:
        slug = self.cleaned_data["tenant"]
        if not slug:
            return None
        if tenant := Tenant.objects.filter(slug=slug).first():
            return tenant
        raise ValidationError(_("There is no such tenant. Write its short name, as in its address."))


def whole_hours(period: Period, zone: ZoneInfo) -> Period:
    """The same time by the hour, widened to whole ones."""
    start_s = floor_s("hour", period.start.timestamp(), zone)
    end_s = floor_s("hour", period.end.timestamp() - 1, zone)
    return Period(at(start_s).astimezone(zone), at(next_s("hour", end_s, zone)).astimezone(zone), "hour")


def preset(name: str, zone: ZoneInfo, now: datetime) -> Period:
    """One of RANGES: so many buckets, of which the last is that of `now`."""
    _label, span, count = RANGES[name]
    end_s = next_s(span, floor_s(span, now.timestamp(), zone), zone)
    start_s = floor_s(span, end_s - 1, zone)
    for _n in range(count - 1):
        start_s = floor_s(span, start_s - 1, zone)
    return Period(at(start_s).astimezone(zone), at(end_s).astimezone(zone), span)


_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _choice(label: Any, choices: Any, **options: Any) -> forms.ChoiceField:
    """None of them: the first."""
    return forms.ChoiceField(**{"label": label, "choices": list(choices), "required": False, "widget": Menu} | options)


def _named(label: Any, offered: dict[str, str], asked: str) -> forms.CharField:
    """One of those offered, or none; also one that is not there any more, for its usage is. Typed where there are very many."""
    widget: forms.Widget = forms.TextInput(attrs={"maxlength": 128})
    if len(offered) <= OFFERED_MOST:
        more = {asked[:128]: asked[:128]} if asked and asked not in offered else {}
        widget = Menu(choices=[("", _("All")), *offered.items(), *more.items()])
    return forms.CharField(label=label, required=False, max_length=128, widget=widget)
