"""Which people must have a second factor."""

from typing import ClassVar, Final

from django.db import models
from django.utils.translation import gettext_lazy as _

from accounts.roles import Role

OPERATORS: Final = "operator"
SUBJECTS: Final = [(OPERATORS, _("Operators")), *Role.choices]


class SecurityRule(models.Model):
    """subject: operators, or everybody who has that role in any tenant. A row is there as long as the rule is in force."""

    subject = models.CharField(max_length=16, primary_key=True, choices=SUBJECTS)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(subject__in=[value for value, _label in SUBJECTS]), name="security_rule_subject_known"
            )
        ]

    def __str__(self) -> str:
        return self.subject
