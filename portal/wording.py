"""The words in which people read what the code names: verbs of the audit trail, and limits."""

from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.roles import Action

VERBS: Final[dict[str, Promise]] = {
    "tenant.created": _("Tenant created"),
    "tenant.changed": _("Tenant changed"),
    "tenant.deleted": _("Tenant deleted"),
    "tenant.suspended": _("Tenant suspended"),
    "tenant.resumed": _("Tenant resumed"),
    "tenant.viewing_begun": _("An operator began to view as this tenant"),
    "tenant.viewing_ended": _("The operator stopped viewing as this tenant"),
    "plan.created": _("Quota plan created"),
    "plan.changed": _("Quota plan changed"),
    "plan.deleted": _("Quota plan deleted"),
    "member.created": _("Member added"),
    "member.changed": _("Member's role changed"),
    "member.deleted": _("Member removed"),
    "member.invited": _("Member invited"),
    "member.invitation_withdrawn": _("Invitation withdrawn"),
    "member.joined": _("Invitation accepted"),
    "key.issued": _("Key issued"),
    "key.imported": _("Key imported"),
    "key.changed": _("Key changed"),
    "key.rotated": _("Key rotated"),
    "key.revoked": _("Key revoked"),
    "alias.created": _("Alias created"),
    "alias.changed": _("Alias changed"),
    "alias.deleted": _("Alias deleted"),
    "policy.created": _("Policy created"),
    "policy.changed": _("Policy changed"),
    "policy.drafted": _("Policy drafted"),
    "policy.draft_discarded": _("Policy draft discarded"),
    "policy.published": _("Policy published"),
    "policy.rolled_back": _("Policy rolled back"),
    "policy.deleted": _("Policy deleted"),
}
ACTIONS: Final[dict[Action, Promise]] = {
    Action.VIEW: _("See aliases, keys, limits, policies, members and usage"),
    Action.MANAGE_KEYS: _("Make, change, rotate and revoke API keys"),
    Action.MANAGE_POLICIES: _("Write and publish content policies"),
    Action.MANAGE_SETTINGS: _("Change the settings of the tenant"),
    Action.VIEW_AUDIT: _("Read who did what, and from where"),
    Action.MANAGE_MEMBERS: _("Invite people, change their roles, remove them"),
    Action.MANAGE_OWNERS: _("Make owners, and take the role away"),
}
LIMITS: Final[dict[str, Promise]] = {
    "requests_per_minute": _("Requests per minute"),
    "tokens_per_hour": _("Tokens per hour"),
    "tokens_per_day": _("Tokens per day"),
    "tokens_per_month": _("Tokens per month"),
    "concurrent_requests": _("Requests at the same time"),
    "money_per_month": _("Money per month"),
}


def in_words(name: str) -> str:
    """What has no words yet is shown as it is."""
    return str(VERBS.get(name) or LIMITS.get(name) or name)
