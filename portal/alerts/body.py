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
            "type": "test" if delivery.alert is None else "alert.fired",
            "id": str(delivery.id),
            "created_at": _time(delivery.created_at),
            "tenant": delivery.tenant.slug if delivery.tenant else None,
        }
        if delivery.alert is None:
            told["text"] = _("A test: this webhook of Sekisho works.")
        else:
            told |= {"text": words.title(delivery.alert), "alert": _alert(delivery.alert)}
    return orjson.dumps(told)


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "kind": alert.kind,
        "level": alert.level,
        "rule": words.rule_name_of(alert),
        "threshold": alert.threshold,
        "unit": kinds.KINDS[alert.kind].unit,
        "window": alert.window,
        "detail": words.detail(alert, words.zone_of(alert)),
        "url": words.url(alert),
        "facts": {name: value for name, value in alert.facts.items() if name != "owner_id"},
    }


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
