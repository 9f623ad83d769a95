"""Thirty days of believable use, made up for the demo tenant and a second one: to look at, and to be taken away again.

Posted as real calls are, through the ledger; by keys of its own, whose text nobody has seen, and with MARK in its metadata.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import connection, transaction

from accounts import audit, issuing
from accounts.models import ApiKey, Tenant
from accounts.scopes import CHAT
from gateway.config.documents import Price
from gateway.models import Deployment, Limit, ModelAlias
from gateway.pricing import cost_nano
from portal import demo
from usage import ledger, retention
from usage.events import UsageEvent

DAYS: Final = 30
MARK: Final = {"demo": "made up"}
OTHER: Final = "sample"
DAY_LIMIT_TOKENS: Final = 900_000
_BATCH: Final = 5000
_BY: Final = audit.By(actor=None, actor_label="command: demo_usage")
# Calls an hour, by the clock of the tenant: two humps of an office day.
_HOURS: Final = (2, 1, 1, 1, 1, 2, 4, 9, 24, 48, 55, 50, 28, 46, 58, 54, 48, 40, 26, 16, 12, 8, 5, 3)
_WEEKDAYS: Final = (1.0, 1.1, 1.15, 1.05, 0.9, 0.18, 0.12)
_PRICE: Final = Price(prompt=500_000, cached=50_000, completion=1_500_000)


class CannotSeed(Exception):
    """The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class _Program:
    """What calls: its key, how much of the traffic, of which alias, how long its prompts and answers are."""

    name: str
    share: float
    alias: str
    prompt_tokens: int
    completion_tokens: int
    streams: bool = True
    only_at_night: bool = False


_PROGRAMS: Final[dict[str, Sequence[_Program]]] = {
    demo.TENANT: (
        _Program("support-desk", 0.55, "general", 900, 260),
        _Program("contract-review", 0.15, "secure", 3800, 620),
        _Program("search-assistant", 0.3, "general", 420, 150),
        _Program("nightly-summaries", 0.9, "general", 5200, 380, streams=False, only_at_night=True),
    ),
    OTHER: (
        _Program("translations", 0.35, "general", 700, 680),
        _Program("chat", 0.2, "general", 350, 300),
    ),
}


def seed(now: datetime) -> int:
    """Make it up, to the minute before `now`; how many calls. Raises CannotSeed."""
    tenant = Tenant.objects.filter(slug=demo.TENANT, is_demo=True).first()
    if tenant is None:
        raise CannotSeed("There is no demo tenant: start once with `manage.py up`, without --no-demo.")
    other = _other_tenant()
    if any(_key_ids(one) for one in (tenant, other)):
        raise CannotSeed("There is made-up use already: take it away with `manage.py demo_usage --remove` first.")
    count = 0
    for one in (tenant, other):
        keys = {program.name: _key(one, program.name) for program in _PROGRAMS[one.slug]}
        batch: list[UsageEvent] = []
        for event in _events(one, keys, now):
            batch.append(event)
            if len(batch) == _BATCH:
                count, batch = count + ledger.post(batch), []
        count += ledger.post(batch)
        ApiKey.objects.filter(pk__in=[key.pk for key in keys.values()]).update(last_used_at=now)
    return count


def remove() -> int:
    """Take all of it away: calls, keys' validity, the second tenant. How many calls."""
    count = 0
    for tenant in Tenant.objects.filter(slug__in=_PROGRAMS, is_demo=True):
        if ids := _key_ids(tenant):
            count += retention.forget(str(tenant.pk), ids)
            for key in ApiKey.objects.for_tenant(tenant).filter(pk__in=ids):
                issuing.revoke(key, **_BY)
        if tenant.slug == OTHER:
            with transaction.atomic():
                audit.record(verb="tenant.deleted", target=f"tenant {tenant}", **_BY)
                ModelAlias.objects.filter(tenant=tenant).delete()
                tenant.delete()
    return count


@transaction.atomic
def _other_tenant() -> Tenant:
    facts = {"name": "Sample Trading", "is_demo": True, "time_zone": "Europe/Berlin"}
    tenant, is_new = Tenant.objects.get_or_create(slug=OTHER, defaults=facts)
    if not tenant.is_demo:
        raise CannotSeed(f"The tenant “{OTHER}” is a real one: nothing is made up for it.")
    if is_new:
        if deployment := Deployment.objects.filter(name="demo").first():
            ModelAlias.objects.create(tenant=tenant, name="general", deployment=deployment)
        Limit.objects.create(tenant=tenant, name="tokens_per_day", max=DAY_LIMIT_TOKENS)
        audit.record(verb="tenant.created", target=f"tenant {tenant}", tenant=tenant, **_BY)
    return tenant


def _key(tenant: Tenant, name: str) -> ApiKey:
    """Of the tenant's names those are taken that are free."""
    taken = set(ApiKey.objects.for_tenant(tenant).filter(name__startswith=name).values_list("name", flat=True))
    free = next(tried for tried in (name, *(f"{name}-{n}" for n in range(2, 1000))) if tried not in taken)
    return issuing.issue(tenant, issuing.Terms(name=free, scopes=[CHAT]), **_BY)[0]


def _key_ids(tenant: Tenant) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT key_id::text FROM usage_usagerecord WHERE tenant_id = %s AND metadata ->> 'demo' = %s",
            [tenant.pk, MARK["demo"]],
        )
        return [key_id for (key_id,) in cursor.fetchall()]


def _events(tenant: Tenant, keys: dict[str, ApiKey], now: datetime) -> Iterator[UsageEvent]:
    """Oldest first, by the hour. The same days give the same calls: nothing is rolled but by this generator."""
    rolls, zone = random.Random(tenant.slug), ZoneInfo(tenant.time_zone)  # noqa: S311 - a picture, no secret
    start = (now - timedelta(days=DAYS)).replace(minute=0, second=0, microsecond=0)
    incident, hit = (now - timedelta(days=9)).astimezone(zone).date(), (now - timedelta(days=4)).astimezone(zone).date()
    for hour in range(DAYS * 24 + 1):
        begins = start + timedelta(hours=hour)
        local = begins.astimezone(zone)
        for program in _PROGRAMS[tenant.slug]:
            for _call in range(_calls(rolls, program, local)):
                moment = begins + timedelta(seconds=rolls.random() * 3600)
                if moment >= now:
                    continue
                is_down = local.date() == incident and local.hour == 14 and tenant.slug == demo.TENANT
                is_full = local.date() == hit and local.hour in (16, 17) and tenant.slug == OTHER
                yield _event(rolls, tenant, keys[program.name], program, moment, is_down=is_down, is_full=is_full)


def _calls(rolls: random.Random, program: _Program, local: datetime) -> int:
    if program.only_at_night:
        return round(rolls.gauss(28, 4) * program.share) if local.hour == 2 else 0
    mean = _HOURS[local.hour] * _WEEKDAYS[local.weekday()] * program.share
    return max(0, round(rolls.gauss(mean, math.sqrt(mean))))


def _event(
    rolls: random.Random, tenant: Tenant, key: ApiKey, program: _Program, moment: datetime, *, is_down: bool, is_full: bool
) -> UsageEvent:
    ended = _ending(rolls, is_down=is_down, is_full=is_full)
    has_answer = ended["outcome"] in ("completed", "client_left")
    prompt = max(12, round(rolls.lognormvariate(math.log(program.prompt_tokens), 0.5))) if has_answer else 0
    cached = prompt // 2 if has_answer and rolls.random() < 0.3 else 0
    completion = max(4, round(rolls.lognormvariate(math.log(program.completion_tokens), 0.6))) if has_answer else 0
    queue_ms = round(rolls.expovariate(1 / (900 if is_down else 25))) if has_answer else 0
    first_ms = queue_ms + round(120 + prompt / 9 + rolls.expovariate(1 / 90))
    refused = ended["outcome"] == "refused"
    duration_ms = rolls.randint(2, 9) if refused else 30_000 if not has_answer else first_ms + round(completion * 14)
    seen = {"subject": "tenant", "name": str(tenant.pk), "limit": "tokens_per_day", "reserved": 0, "max": DAY_LIMIT_TOKENS}
    used = DAY_LIMIT_TOKENS if is_full else rolls.randrange(DAY_LIMIT_TOKENS // 2)
    return UsageEvent(
        request_id=str(UUID(int=rolls.getrandbits(128), version=4)),
        created_s=round(moment.timestamp(), 3),
        tenant=tenant.slug,
        tenant_id=str(tenant.pk),
        key_id=str(key.pk),
        key_name=key.name,
        alias=program.alias,
        deployment=None if refused else "demo",
        backend=None if refused else "demo",
        stream=program.streams,
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        usage_source="backend" if has_answer else "none",
        first_token_ms=first_ms if has_answer and program.streams else None,
        duration_ms=duration_ms,
        queue_ms=queue_ms,
        attempts=0 if refused else 1,
        metadata=MARK | {"team": program.name.partition("-")[0]},
        cost_nano=cost_nano(_PRICE, prompt, cached, completion),
        price=asdict(_PRICE),
        limits=[seen | {"used": used, "mode": "enforce"}] if tenant.slug == OTHER else None,
        **ended,
    )


def _ending(rolls: random.Random, *, is_down: bool, is_full: bool) -> dict[str, Any]:
    roll = rolls.random()
    if is_full and roll < 0.8:
        return {"status": 429, "outcome": "refused", "error_code": "token_quota_exceeded"}
    if is_down and roll < 0.6:
        return {"status": 502, "outcome": "failed", "error_code": "upstream_unavailable"}
    if roll < 0.004:
        return {"status": 504, "outcome": "timeout", "error_code": "upstream_timeout"}
    if roll < 0.010:
        return {"status": 403, "outcome": "refused", "error_code": "content_blocked"}
    if roll < 0.016:
        return {"status": 429, "outcome": "refused", "error_code": "rate_limited"}
    if roll < 0.024:
        return {"status": 499, "outcome": "client_left", "error_code": "client_left"}
    return {"status": 200, "outcome": "completed", "error_code": None}
