"""The portal app: templates' tags, static files, management commands. Its only models are those of portal/alerts."""

from django.apps import AppConfig


class PortalConfig(AppConfig):
    name = "portal"

    def ready(self) -> None:
        from portal.identity import sessions, trail  # noqa: F401 - they connect their receivers
