"""The gateway app, in the portal's processes: its tables and what publishes them. The gateway's own profile loads no app."""

from django.apps import AppConfig


class GatewayConfig(AppConfig):
    name = "gateway"

    def ready(self) -> None:
        from gateway.config import publish

        publish.connect_signals()
