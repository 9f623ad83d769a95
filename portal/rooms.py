"""The rooms of the portal: what stands in the navigation, who sees it, and the letter that opens it after `g`."""

from dataclasses import dataclass
from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.roles import Action


@dataclass(frozen=True, slots=True)
class Room:
    """page: the URL name it opens. pages: URL names, and beginnings of URL names before `_`, that are part of it."""

    page: str
    label: Promise
    icon: str  # one of lucide's
    letter: str
    pages: tuple[str, ...]
    action: Action = Action.VIEW  # in a tenant: who may not do it does not see the room

    def holds(self, page: str) -> bool:
        return any(page == name or page.startswith(f"{name}_") for name in self.pages)


OF_A_TENANT: Final = (
    Room("tenant", _("Overview"), "layout-dashboard", "o", ("tenant",)),
    Room("usage", _("Usage"), "chart-column", "u", ("usage",)),
    Room("requests", _("Requests"), "list", "r", ("requests", "request")),
    Room("playground", _("Playground"), "message-square-code", "y", ("playground",), Action.USE_PLAYGROUND),
    Room("keys", _("API keys"), "key-round", "k", ("keys", "key")),
    Room("policies", _("Policies"), "shield-check", "p", ("policies", "policy")),
    Room("aliases", _("Aliases"), "tag", "a", ("aliases",)),
    Room("limits", _("Limits"), "gauge", "l", ("limits",)),
    Room("alerts", _("Alerts"), "bell-ring", "w", ("alerts", "rule", "webhook", "deliveries", "delivery")),
    Room("members", _("Members"), "users", "m", ("members", "member", "invitation")),
    Room("audit", _("Audit"), "scroll-text", "h", ("audit",), Action.VIEW_AUDIT),
    Room("settings", _("Settings"), "settings", "s", ("settings",), Action.MANAGE_SETTINGS),
    Room("docs", _("Docs"), "book-open", "d", ("docs",)),
)

OF_THE_PLATFORM: Final = (
    Room("admin_fleet", _("Fleet"), "activity", "f", ("admin_fleet",)),
    Room("admin_tenants", _("Tenants"), "building-2", "t", ("admin_tenant", "admin_tenants")),
    Room("admin_plans", _("Quota plans"), "clipboard-list", "q", ("admin_plan", "admin_plans")),
    Room("admin_backends", _("Backends"), "server", "b", ("admin_backends", "admin_backend")),
    Room("admin_deployments", _("Deployments"), "layers", "d", ("admin_deployments", "admin_deployment")),
    Room("admin_aliases", _("Aliases"), "tags", "a", ("admin_aliases", "admin_alias")),
    Room("admin_health", _("Health and jobs"), "heart-pulse", "j", ("admin_health",)),
    Room(
        "admin_alerts",
        _("Alerts"),
        "bell-ring",
        "w",
        ("admin_alerts", "admin_rule", "admin_webhook", "admin_deliveries", "admin_delivery"),
    ),
    Room("admin_usage", _("Usage"), "chart-column", "u", ("admin_usage",)),
    Room("admin_policies", _("Policies"), "shield-check", "p", ("admin_policies", "admin_policy")),
    Room("admin_audit", _("Audit"), "scroll-text", "h", ("admin_audit",)),
    Room("admin_access", _("Access"), "shield-user", "c", ("admin_access",)),
)
