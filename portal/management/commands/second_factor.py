"""`manage.py second_factor remove ADDRESS`: for an operator whose phone is lost, when no other can help."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import User
from portal.identity import rescue


class Command(BaseCommand):
    help = "Take app, passkeys and recovery codes off an account: the password alone opens it then."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("verb", choices=["remove"])
        parser.add_argument("email", metavar="ADDRESS")

    def handle(self, *args: Any, email: str, **options: Any) -> None:
        user = User.objects.filter(email=email.lower()).first()
        if user is None:
            raise CommandError(f"There is no account {email}.")
        if not rescue.remove_second_factor(user, actor=None, actor_label="command: second_factor remove"):
            raise CommandError(f"{user} has no second factor.")
        self.stdout.write(f"{user} signs in with the password alone.")
