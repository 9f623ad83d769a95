"""`manage.py export`: the whole configuration, but its secrets, as the YAML file that `manage.py apply` reads."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from gateway.config.declarative import export


class Command(BaseCommand):
    help = "Write the whole configuration, but its secrets, as one YAML file."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--out", type=Path, metavar="FILE", help="write into this file, not to stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        out: Path | None = options["out"]
        if out is None:
            self.stdout.write(export(), ending="")
            return
        try:
            out.write_text(export(), "utf-8")
        except OSError as error:
            raise CommandError(f"{out} cannot be written: {error.strerror}.") from error
