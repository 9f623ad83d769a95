"""The words in which people read what the code names: verbs of the audit trail, limits, and what rules of policies say."""

from typing import Final

from django.utils.functional import Promise
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from accounts.roles import Action
from gateway.policy.problems import Problem

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
    "user.created": _("User created"),
    "key.issued": _("Key issued"),
    "key.imported": _("Key imported"),
    "key.changed": _("Key changed"),
    "key.rotated": _("Key rotated"),
    "key.revoked": _("Key revoked"),
    "key.played": _("Playground used"),
    "alias.created": _("Alias created"),
    "alias.changed": _("Alias changed"),
    "alias.deleted": _("Alias deleted"),
    "operator.added": _("Operator added"),
    "operator.removed": _("Operator removed"),
    "security.rules_changed": _("Rules of the second factor changed"),
    "lockout.lifted": _("Lock-out lifted"),
    "person.signed_in": _("Sign-in"),
    "person.signed_out": _("Sign-out"),
    "person.sign_in_failed": _("Sign-in failed"),
    "person.locked_out": _("Locked out"),
    "person.changed": _("Profile changed"),
    "person.password_changed": _("Password changed"),
    "person.link_made": _("Link for a new password made"),
    "person.second_factor_added": _("Second factor added"),
    "person.second_factor_renamed": _("Second factor renamed"),
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
    "alert_rule.created": _("Alert rule made"),
    "alert_rule.changed": _("Alert rule changed"),
    "alert_rule.deleted": _("Alert rule deleted"),
    "webhook.created": _("Webhook made"),
    "webhook.changed": _("Webhook changed"),
    "webhook.secret_rotated": _("Webhook's secret rotated"),
    "webhook.tested": _("Webhook tested"),
    "webhook.deleted": _("Webhook deleted"),
    "delivery.resent": _("Delivery of an alert sent again"),
    "export.asked": _("Export asked for"),
    "export.cancelled": _("Export cancelled"),
    "export.fetched": _("Export fetched"),
    "audit.verified": _("Audit trail verified"),
}
PROOFS: Final[dict[str, Promise]] = {
    "password": _("Password"),
    "totp": _("Authenticator app"),
    "webauthn": _("Passkey"),
    "recovery_codes": _("Recovery code"),
    "second factor": _("Second factor"),
    "invitation": _("Link of an invitation"),
}
MEMBERS_MAY: Final[dict[Action, Promise]] = {
    Action.VIEW: _("See aliases, keys, limits, policies, members and usage"),
    Action.USE_PLAYGROUND: _("Try aliases in the playground"),
    Action.MANAGE_KEYS: _("Make, change, rotate and revoke API keys"),
    Action.MANAGE_POLICIES: _("Write and publish content policies"),
    Action.MANAGE_SETTINGS: _("Change the settings of the tenant"),
    Action.VIEW_AUDIT: _("Read who did what, and from where"),
    Action.MANAGE_MEMBERS: _("Invite people, change their roles, remove them"),
    Action.MANAGE_OWNERS: _("Make owners, and take the role away"),
}
OF_THE_PLATFORM: Final[dict[str, Promise]] = {
    "backend.created": _("Backend added"),
    "backend.changed": _("Backend changed"),
    "backend.drained": _("Backend taken out of service"),
    "backend.resumed": _("Backend put back into service"),
    "backend.deleted": _("Backend deleted"),
    "usage.drifted": _("Usage differs between the books"),
    "usage.reconciliation_asked": _("Comparison of the books asked for"),
    "deployment.created": _("Deployment created"),
    "deployment.changed": _("Deployment changed"),
    "deployment.deleted": _("Deployment deleted"),
}
LIMITS: Final[dict[str, Promise]] = {
    "requests_per_minute": _("Requests per minute"),
    "tokens_per_hour": _("Tokens per hour"),
    "tokens_per_day": _("Tokens per day"),
    "tokens_per_month": _("Tokens per month"),
    "concurrent_requests": _("Requests at the same time"),
    "money_per_month": _("Money per month"),
}


ENDINGS: Final[dict[str, Promise]] = {
    "completed": _("Completed"),
    "failed": _("Failed"),
    "refused": _("Refused"),
    "blocked": _("Blocked"),
    "client_left": _("Client left"),
    "": _("Not told apart"),  # rollups of an older release
}
KINDS: Final[dict[str, Promise]] = {
    "keywords": _("Keywords"),
    "pattern": _("Pattern"),
    "detector": _("Personal data and secrets"),
    "size": _("Size"),
    "script": _("Scripts and languages"),
    "roles": _("Roles of messages"),
    "tools": _("Tools"),
    "judge": _("Guard model"),
}
ACTIONS: Final[dict[str, Promise]] = {
    "block": _("Block: the call is refused, or the answer ends"),
    "redact": _("Mask: it is replaced, and the rest passes"),
    "flag": _("Monitor: all passes, and it is counted"),
}
ACTIONS_SHORT: Final[dict[str, Promise]] = {"block": _("Block"), "redact": _("Mask"), "flag": _("Monitor")}
SURFACES: Final[dict[str, Promise]] = {
    "input": _("All of the input"),
    "output": _("All of the answer"),
    "input.system": _("Input: system messages"),
    "input.user": _("Input: user messages"),
    "input.assistant": _("Input: earlier answers"),
    "input.tool": _("Input: results of tools"),
    "input.documents": _("Input: documents"),
    "input.tool_definitions": _("Input: descriptions of tools"),
    "output.content": _("Answer: its text"),
    "output.reasoning": _("Answer: its reasoning"),
    "output.tool_arguments": _("Answer: arguments of tool calls"),
}
DETECTED: Final[dict[str, Promise]] = {
    "email": _("E-mail addresses"),
    "jp_phone": _("Telephone numbers of Japan"),
    "phone": _("Telephone numbers of any country"),
    "jp_postal_code": _("Postal codes of Japan"),
    "my_number": _("My Number"),
    "credit_card": _("Credit card numbers"),
    "iban": _("IBAN"),
    "ip_address": _("IP addresses"),
    "secret": _("Secrets: API keys, tokens, private keys"),
}
SCRIPTS: Final[dict[str, Promise]] = {
    "latin": _("Latin"),
    "han": _("Han (kanji)"),
    "hiragana": _("Hiragana"),
    "katakana": _("Katakana"),
    "japanese": _("Japanese"),
    "hangul": _("Hangul"),
    "bopomofo": _("Bopomofo"),
    "greek": _("Greek"),
    "cyrillic": _("Cyrillic"),
    "armenian": _("Armenian"),
    "georgian": _("Georgian"),
    "hebrew": _("Hebrew"),
    "arabic": _("Arabic"),
    "devanagari": _("Devanagari"),
    "bengali": _("Bengali"),
    "tamil": _("Tamil"),
    "thai": _("Thai"),
    "lao": _("Lao"),
    "khmer": _("Khmer"),
    "myanmar": _("Myanmar"),
    "mongolian": _("Mongolian"),
    "ethiopic": _("Ethiopic"),
}
# As gateway/policy/problems.py says them in English: a test compares.
PROBLEMS: Final[dict[str, Promise]] = {
    "not_a_list": _("must be a list of rules."),
    "too_many_rules": _("has more than %(most)d rules; make it two policies."),
    "not_a_mapping": _("must be a mapping, like {kind: keywords, words: [...], where: [input], action: block}."),
    "not_json": _("must hold what JSON can hold; write dates in quotes."),
    "holds_nul": _("holds the character NUL, which cannot be kept."),
    "name_taken": _('"%(name)s" is the name of an earlier rule; choose another.'),
    "not_one_of": _("must be one of %(choices)s."),
    "not_a_flag": _("must be true or false."),
    "not_a_number": _("must be a whole number from 1 to %(most)d."),
    "not_a_text": _("must be a text of 1 to %(most)d characters."),
    "not_texts": _("must be a list of 1 to %(most)d texts."),
    "where_not_a_list": _("must be a list of %(choices)s."),
    "where_not_looked_at": _("a rule of this kind looks at %(choices)s only."),
    "no_such_field": _("is no field of such a rule. There are %(choices)s."),
    "no_span_to_redact": _("must be block or flag: a rule of this kind finds no span that could be masked."),
    "bad_name": _("must be 1 to 64 letters, digits, dots, dashes or underscores."),
    "bad_label": _("must be a capital letter and up to 30 capital letters, digits or underscores."),
    "nothing_to_restore": _("only what is redacted in the input can be restored in the answer."),
    "no_bound": _("must have max_characters, max_messages or max_images."),
    "answer_has_characters_alone": _("an answer has no messages and no images; give max_characters."),
    "pattern_refused": _("RE2 refuses it: %(reason)s. Look-around and back-references are not to be had."),
    "pattern_too_large": _("it is too large; write smaller counts than {1,1000}, or * and +."),
    "pattern_matches_nothing": _("it also matches nothing at all, and so everywhere; demand at least one character."),
    "pattern_not_understood": _("what begins at character %(place)d is not understood; write it in another way."),
    "pattern_too_deep": _("its groups are nested too deep."),
    "patterns_too_large": _("RE2 refuses it, or all of them together are too large."),
}


def in_words(name: str) -> str:
    """What has no words yet is shown as it is."""
    found = VERBS.get(name) or OF_THE_PLATFORM.get(name) or LIMITS.get(name) or ENDINGS.get(name)
    return str(found or name)


def problem(found: Problem) -> str:
    """What is wrong in a rule, in the reader's language."""
    return capfirst(str(PROBLEMS[found.code]) % found.facts if found.facts else str(PROBLEMS[found.code]))
