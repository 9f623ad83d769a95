"""`manage.py apply FILE`: make the configuration what a YAML file says, and show what that changes."""

import json
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from gateway.config import publish
from gateway.config.declarative import Report, apply
from gateway.config.source import InvalidFile
from portal.settings import env


class Command(BaseCommand):
    help = "Make the configuration what a YAML file says; what the file does not name is left alone."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
        parser.add_argument(
            "--prune",
            action="store_true",
            help="also remove what the file's lists no longer name: in backends, deployments, tenants, and in each named "
            "tenant's aliases and keys (keys are revoked); asks first",
        )
        parser.add_argument("--no-input", action="store_false", dest="asks", help="with --prune: do not ask")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        file, dry_run, prune = options["file"], options["dry_run"], options["prune"]
        if prune and options["asks"] and not dry_run:
            self._ask(_apply(file, dry_run=True, prune=True))
        report = _apply(file, dry_run=dry_run, prune=prune)
        if not dry_run:
            publish.catch_up()  # also where no worker runs yet, and nothing was published before
        if options["json"]:
            self.stdout.write(json.dumps(_facts(report, dry_run=dry_run), ensure_ascii=False))
        else:
            self._print(report, dry_run=dry_run)

    def _ask(self, preview: Report) -> None:
        removals = [change for change in preview.changes if change.sign == "-"]
        if not removals:
            return
        self.stderr.write("\n".join(map(str, removals)))
        try:
            answer = input("Remove these? [y/N] ")
        except EOFError:
            raise CommandError(
                "Nothing was changed: nobody is here to be asked. Look at --dry-run, then add --no-input."
            ) from None
        if answer.strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was changed.")

    def _print(self, report: Report, *, dry_run: bool) -> None:
        for change in report.changes:
            self.stdout.write(str(change))
        for key in report.minted:
            self.stdout.write(f"Key {key.tenant}/{key.name}, shown this once: {key.text}")
        if not report.changes:
            self.stdout.write("No changes.")
        elif dry_run:
            self.stdout.write("Dry run: nothing was changed.")


def _apply(file: Path, *, dry_run: bool, prune: bool) -> Report:
    try:
        return apply(file, secret_of=_secret_of, dry_run=dry_run, prune=prune)
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}.") from error
    except InvalidFile as error:
        raise CommandError(f"{file} is not applied:\n{error}") from error


def _secret_of(name: str) -> str | None:
    try:
        return env.secret(name)
    except ImproperlyConfigured:
        return None


def _facts(report: Report, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "changes": [str(change) for change in report.changes],
        "minted": [{"tenant": key.tenant, "name": key.name, "key": key.text} for key in report.minted],
    }
