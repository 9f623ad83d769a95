"""The words in which people read what the code names: verbs of the audit trail, and limits."""

from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

VERBS: Final[dict[str, Promise]] = {
    "tenant.created": _("Tenant created"),
    "tenant.changed": _("Tenant changed"),
    "tenant.deleted": _("Tenant deleted"),
    "member.created": _("Member added"),
    "member.changed": _("Member's role changed"),
    "member.deleted": _("Member removed"),
    "key.issued": _("Key issued"),
    "key.imported": _("Key imported"),
    "key.changed": _("Key changed"),
    "key.rotated": _("Key rotated"),
    "key.revoked": _("Key revoked"),
    "alias.created": _("Alias created"),
    "alias.changed": _("Alias changed"),
    "alias.deleted": _("Alias deleted"),
    "user.created": _("Account created"),
    "operator.added": _("Operator added"),
    "operator.removed": _("Operator removed"),
    "security.rules_changed": _("Rules of the second factor changed"),
    "lockout.lifted": _("Lock-out lifted"),
    "person.changed": _("Profile changed"),
    "person.password_changed": _("Password changed"),
    "person.link_made": _("Link for a new password made"),
    "person.second_factor_added": _("Second factor added"),
    "person.second_factor_removed": _("Second factor removed"),
    "person.recovery_codes_renewed": _("Recovery codes renewed"),
    "person.sessions_ended": _("Sessions ended"),
    "person.provider_connected": _("Sign-in provider connected"),
    "policy.created": _("Policy created"),
    "policy.changed": _("Policy changed"),
    "policy.drafted": _("Policy drafted"),
    "policy.draft_discarded": _("Policy draft discarded"),
    "policy.published": _("Policy published"),
    "policy.rolled_back": _("Policy rolled back"),
    "policy.deleted": _("Policy deleted"),
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
