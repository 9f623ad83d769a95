"""`manage.py up` as Django lists it. manage.py itself goes to portal/up.py at once, before settings are read."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from portal import up


class Command(BaseCommand):
    help = "Start everything on this machine. `manage.py up --help` lists its options."

    def run_from_argv(self, argv: list[str]) -> None:
        sys.exit(up.main(argv[2:]))

    def handle(self, *args: Any, **options: Any) -> None:
        raise CommandError("up is run from a command line")
