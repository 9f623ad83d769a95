"""The alerts app: the one of the top floor that has tables, for its rows know limits, backends and people alike."""

from django.apps import AppConfig


class AlertsConfig(AppConfig):
    name = "portal.alerts"
    label = "alerts"

    def ready(self) -> None:
        from portal.alerts import defaults  # noqa: F401 - it connects its receiver
