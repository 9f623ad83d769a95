"""Roles of members, and the matrix of what each may do: the one place that says so."""

from enum import StrEnum
from typing import Final

from django.db import models
from django.utils.translation import gettext_lazy as _


class Role(models.TextChoices):
    OWNER = "owner", _("Owner")
    ADMIN = "admin", _("Admin")
    DEVELOPER = "developer", _("Developer")
    VIEWER = "viewer", _("Viewer")


class Action(StrEnum):
    """What a person can do in a tenant."""

    VIEW = "view"  # aliases, keys without their text, usage
    USE_PLAYGROUND = "use_playground"  # calls of one's own, which count for the tenant
    MANAGE_KEYS = "manage_keys"
    MANAGE_POLICIES = "manage_policies"
    MANAGE_SETTINGS = "manage_settings"
    VIEW_AUDIT = "view_audit"  # who did what, with addresses
    MANAGE_MEMBERS = "manage_members"
    MANAGE_OWNERS = "manage_owners"


ALLOWED: Final[dict[Role, frozenset[Action]]] = {
    Role.VIEWER: frozenset({Action.VIEW}),
    Role.DEVELOPER: frozenset({Action.VIEW, Action.USE_PLAYGROUND, Action.MANAGE_KEYS}),
    Role.ADMIN: frozenset(Action) - {Action.MANAGE_OWNERS},
    Role.OWNER: frozenset(Action),
}


def allows(role: str, action: Action) -> bool:
    """May a member with `role` do `action`? An unknown role may nothing."""
    return role in Role.values and action in ALLOWED[Role(role)]


def may_assign(own: str, role: str) -> bool:
    """May a member with role `own` give `role`, or take it away? Only who manages members, and never one above their own."""
    return allows(own, Action.MANAGE_MEMBERS) and role in Role.values and ALLOWED[Role(role)] <= ALLOWED[Role(own)]
