"""`manage.py demo_usage`: thirty days of made-up use for the demo tenant and a second one; `--remove` takes it away."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from portal import demo_usage


class Command(BaseCommand):
    help = "Make up thirty days of use, so that the usage pages have something to show; or take it away again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--remove", action="store_true", help="delete what was made up, and the second tenant")

    def handle(self, *args: Any, remove: bool, **options: Any) -> None:
        if remove:
            self.stdout.write(f"{demo_usage.remove()} made-up calls are gone.")
            return
        try:
            count = demo_usage.seed(timezone.now())
        except demo_usage.CannotSeed as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{count} calls of the last {demo_usage.DAYS} days are made up. Take them away with --remove.")
