"""`manage.py translations --update | --check`: the catalogues against the sources. No gettext programs are needed."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser


class Command(BaseCommand):
    help = "Update the catalogues of translations from the sources, or check that they are complete."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--update", action="store_true", help="write the .po files anew and compile them")
        what.add_argument("--check", action="store_true", help="exit with 1 when one is incomplete or out of date")

    def handle(self, *args: Any, update: bool, **options: Any) -> None:
        try:
            from portal import catalogue
        except ImportError as error:
            raise CommandError("This needs the test environment (babel and polib): run deploy/test once.") from error
        if update:
            for language in catalogue.LANGUAGES:
                catalogue.update(language)
        complaints = [line for language in catalogue.LANGUAGES for line in catalogue.complaints(language)]
        for line in complaints:
            self.stdout.write(line)
        if complaints:
            raise CommandError(f"{len(complaints)} to mend: edit portal/locale/*/LC_MESSAGES/django.po, then --update.")
        self.stdout.write("Every message is translated.")
