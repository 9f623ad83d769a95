"""How long alerts are kept: longer than any window of theirs, or one would fire twice in it."""

from datetime import datetime, timedelta
from typing import Final

from portal.alerts.models import Alert, Delivery

ALERTS_KEPT: Final = timedelta(days=180)
DELIVERIES_KEPT: Final = timedelta(days=30)


def prune(now: datetime) -> tuple[int, int]:
    """How many alerts and deliveries went. What is still so, or on its way, stays."""
    ended = Delivery.objects.exclude(state=Delivery.State.WAITING).filter(created_at__lt=now - DELIVERIES_KEPT)
    deliveries = ended.delete()[1].get("alerts.Delivery", 0)
    alerts = Alert.objects.filter(ended_at__lt=now - ALERTS_KEPT).delete()[1].get("alerts.Alert", 0)
    return alerts, deliveries
