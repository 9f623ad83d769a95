"""What a webhook is sent: JSON whose form is version 1. Telling it again gives the same bytes, but for the words' language."""

from datetime import UTC, datetime
from typing import Any, Final

import orjson
from django.conf import settings
from django.utils import translation
from django.utils.translation import gettext as _

from portal.alerts import kinds, words
from portal.alerts.models import Alert, Delivery

VERSION: Final = 1
EXAMPLE: Final[dict[str, Any]] = {
    "version": VERSION,
    "type": "alert.fired",
    "id": "0199c0de-0000-7000-8000-000000000001",
    "created_at": "2026-11-21T09:12:30Z",
    "tenant": "acme",
    "text": "80% used: Tokens per day (key batch)",
    "alert": {
        "kind": "limit",
        "level": "warn",
        "rule": "Limits of our batch programs",
        "threshold": 80,
        "unit": "percent",
        "window": "2026-11-21/50000",
        "fired_at": "2026-11-21T09:12:30Z",
        "ended_at": None,
        "detail": "40,120 of 50,000 are used (80%).",
        "url": "https://sekisho.example.com/t/acme/limits/",
        "facts": {"limit": "tokens_per_day", "of": "key", "of_name": "batch", "used": 40120, "max": 50000},
    },
}


def body(delivery: Delivery) -> bytes:
    """id: the delivery's, which stays the same however often it is tried."""
    language = delivery.tenant.language if delivery.tenant else settings.LANGUAGE_CODE
    with translation.override(language):
        told: dict[str, Any] = {
            "version": VERSION,
            "type": _type(delivery),
            "id": str(delivery.id),
            "created_at": _time(delivery.created_at),
            "tenant": delivery.tenant.slug if delivery.tenant else None,
        }
        if delivery.alert is None:
            told["text"] = _("A test: this webhook of Sekisho works.")
        else:
            told |= {"text": words.title_of(delivery), "alert": _alert(delivery.alert, is_end=delivery.is_end)}
    return orjson.dumps(told)


def _type(delivery: Delivery) -> str:
    if delivery.alert is None:
        return "test"
    return "alert.ended" if delivery.is_end else "alert.fired"


def _alert(alert: Alert, *, is_end: bool) -> dict[str, Any]:
    """ended_at: of its end alone, so that what tells of its beginning is the same whenever it is tried."""
    return {
        "kind": alert.kind,
        "level": alert.level,
        "rule": words.rule_name_of(alert),
        "threshold": alert.threshold,
        "unit": kinds.KINDS[alert.kind].unit,
        "window": alert.window,
        "fired_at": _time(alert.fired_at),
        "ended_at": _time(alert.ended_at) if is_end and alert.ended_at else None,
        "detail": words.detail_of(alert, words.zone_of(alert), is_end=is_end),
        "url": words.url(alert),
        "facts": {name: value for name, value in alert.facts.items() if name != "owner_id"},
    }


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
