"""Who must have a second factor: the rules, whom they reach, and the one writer of them."""

from collections.abc import Collection
from typing import Unpack

from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from accounts import audit
from accounts.models import Membership, SecurityRule, User
from accounts.models.security import OPERATORS


def requires_second_factor(user: User) -> bool:
    """Does a rule reach this person? One query."""
    reached = Q(subject__in=Membership.objects.filter(user=user).values("role"))
    if user.is_operator:
        reached |= Q(subject=OPERATORS)
    return SecurityRule.objects.filter(reached).exists()


def rules() -> list[str]:
    """Subjects that must have a second factor, in no order."""
    return list(SecurityRule.objects.values_list("subject", flat=True))


def reached_by(subject: str) -> int:
    """How many active people a rule for `subject` reaches."""
    people = User.objects.filter(is_active=True)
    if subject == OPERATORS:
        return people.filter(is_operator=True).count()
    return people.filter(Exists(Membership.objects.filter(user=OuterRef("pk"), role=subject))).count()


@transaction.atomic
def set_rules(subjects: Collection[str], **by: Unpack[audit.By]) -> bool:
    """Require a second factor of `subjects`, and of nobody else. False when it is so already: nothing is written then."""
    held = {rule.subject for rule in SecurityRule.objects.select_for_update()}
    wanted = set(subjects)
    if held == wanted:
        return False
    SecurityRule.objects.filter(subject__in=held - wanted).delete()
    SecurityRule.objects.bulk_create([SecurityRule(subject=subject) for subject in wanted - held], ignore_conflicts=True)
    before, after = {"required_of": sorted(held)}, {"required_of": sorted(wanted)}
    audit.record(verb="security.rules_changed", target="second factor", before=before, after=after, **by)
    return True
