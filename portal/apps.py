"""The portal app: templates' tags, static files, management commands. It has no models."""

from django.apps import AppConfig


class PortalConfig(AppConfig):
    name = "portal"

    def ready(self) -> None:
        from portal.identity import sessions, trail  # noqa: F401 - they connect their receivers
