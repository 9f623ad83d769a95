"""What changed between versions of a policy, and what its rules found in the last days."""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from accounts.models import Tenant
from accounts.roles import Action
from gateway.models import ContentPolicy, ContentPolicyVersion
from portal.differences import differences
from portal.forms.blocks import each_written
from portal.forms.policies import DAYS_DEFAULT, CompareForm, DaysForm
from portal.holders import held
from portal.views.policies import page_of, policy_of
from usage.reports import ReportTooLarge, policy_report

VERSIONS_COMPARED: Final = 200
BAR_WIDTH: Final = 1000


@dataclass(slots=True)
class Day:
    """What was decided, by action, in calls; total: of all, for the length of the bars, which are of 1,000."""

    day: date
    block: int = 0
    redact: int = 0
    flag: int = 0
    bars: list[tuple[str, int, int]] = field(default_factory=list)  # action, where it begins, how wide it is

    @property
    def total(self) -> int:
        return self.block + self.redact + self.flag


@dataclass(slots=True)
class Found:
    """What one rule of one version did."""

    version: int
    rule: str
    kind: str
    action: str
    decisions: int = 0
    calls: int = 0


@held(Action.VIEW)
def compare(request: HttpRequest, holder: Tenant | None, name: str) -> HttpResponse:
    """Two versions side by side; by default what the draft changes, else what the version in force did."""
    policy = policy_of(holder, name)
    versions = list(policy.versions.order_by("-number")[:VERSIONS_COMPARED])
    form = CompareForm(_chosen(request, policy, versions), versions=versions)
    lines: Any = None
    is_compared = len(versions) > 1 and form.is_valid()
    if is_compared:
        rules = {version.number: version.rules for version in versions}
        lines = differences(*(each_written(rules[form.cleaned_data[side]]) for side in ("before", "after")))
    context = page_of(request, policy, compare=form, lines=lines, is_compared=is_compared, versions=versions)
    return render(request, "portal/policies/diff.html", context)


@held(Action.VIEW)
def report(request: HttpRequest, holder: Tenant | None, name: str) -> HttpResponse:
    """What its rules found, by rule and by day: of one that only monitors, what it would have stopped."""
    policy = policy_of(holder, name)
    form = DaysForm(request.GET)
    count = int(form.cleaned_data["days"]) if form.is_valid() else DAYS_DEFAULT
    zone = ZoneInfo(holder.time_zone if holder else "UTC")
    today = timezone.now().astimezone(zone).date()
    days = {day: Day(day) for day in (today - timedelta(days=back) for back in range(count - 1, -1, -1))}
    start = datetime.combine(today - timedelta(days=count - 1), datetime.min.time(), zone)
    # Where a tenant has one of its own by this name, its calls mean that.
    besides = () if holder else ContentPolicy.objects.published().filter(tenant__isnull=False, name=name)
    try:
        rows = policy_report(holder, start, policy=name, besides=[own.tenant_id for own in besides if own.tenant_id])
    except ReportTooLarge:
        rows = None
    rules = _by_rule(rows or [])
    _fill(days, rows or [], zone)
    form = DaysForm(initial={"days": count})
    shown = list(days.values())
    context = page_of(request, policy, form=form, days=shown, rules=rules, is_too_large=rows is None)
    return render(request, "portal/policies/report.html", context)


def _chosen(request: HttpRequest, policy: ContentPolicy, versions: list[ContentPolicyVersion]) -> dict[str, Any]:
    """What the URL asks for; what it leaves open."""
    held_number = policy.published.number if policy.published else 0
    draft = next((version.number for version in versions if version.is_draft), None)
    after = draft or held_number
    earlier = [version.number for version in versions if version.number != after and not version.is_draft]
    before = held_number if draft and held_number else next((number for number in earlier if number < after), after)
    return {"before": request.GET.get("before", before), "after": request.GET.get("after", after)}


def _by_rule(rows: list[dict[str, Any]]) -> list[Found]:
    found: dict[tuple[Any, ...], Found] = {}
    for row in rows:
        key = tuple(row[name] for name in ("version", "rule", "kind", "action"))
        rule = found.setdefault(key, Found(*key))
        rule.decisions += row["decisions"]
        rule.calls += row["calls"]
    return sorted(found.values(), key=lambda rule: (-rule.calls, -rule.version, rule.rule))


def _fill(days: dict[date, Day], rows: list[dict[str, Any]], zone: ZoneInfo) -> None:
    for row in rows:
        day = days.get(datetime.fromisoformat(row["start"]).astimezone(zone).date())
        if day is not None and row["action"] in ("block", "redact", "flag"):
            setattr(day, row["action"], getattr(day, row["action"]) + row["decisions"])
    most = max((day.total for day in days.values()), default=0) or 1
    for day in days.values():
        at = 0
        for action in ("block", "redact", "flag"):
            width = getattr(day, action) * BAR_WIDTH // most
            day.bars.append((action, at, width))
            at += width
