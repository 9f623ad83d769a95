"""`manage.py keys create|list|rotate|revoke`. The text of a key leaves once: on stdout, or into a file of mode 0600.

Stdout holds the key, or the JSON, and nothing else, so that `KEY=$(manage.py keys create ...)` works; words for people go
to stderr.
"""

import argparse
import json
import os
import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.db.models import CharField, Q
from django.db.models.functions import Cast
from django.utils import timezone

from accounts import issuing
from accounts.keys import LOOKUP_LENGTH, PREFIX, is_importable, lookup_id, peppers
from accounts.models import ApiKey, Tenant
from accounts.models.tenants import ErrorDialect
from accounts.scopes import SCOPES
from gateway.models import ContentPolicy
from portal import named
from portal.terminal import cell, table

REFERENCE_MIN_LENGTH: Final = 4
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Command(BaseCommand):
    help = "Create, list, rotate and revoke API keys."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a key; its text is shown this once")
        create.add_argument("tenant", help="slug")
        create.add_argument("--name", required=True)
        create.add_argument("--scope", action="append", choices=SCOPES, help="may be repeated; default: chat and models")
        create.add_argument("--alias", action="append", help="may be repeated; default: all of the tenant's")
        create.add_argument("--policy", action="append", default=[], help="content policy by name; may be repeated")
        create.add_argument("--network", action="append", default=[], metavar="CIDR", help="may be repeated; default: anywhere")
        create.add_argument("--expires", type=_expiry, metavar="90d|2027-01-31", help="default: never; a day counts to its end")
        create.add_argument("--dialect", choices=ErrorDialect.values, help="of errors; default: the tenant's")
        _add_output(create)

        listing = verbs.add_parser("list", help="show keys, without their text")
        listing.add_argument("tenant", nargs="?", help="slug; default: every tenant")
        listing.add_argument("--json", action="store_true", help="print one JSON list")

        rotate = verbs.add_parser("rotate", help="replace a key by a new one of the same terms")
        rotate.add_argument("key", help="id, or the start of an id or key")
        rotate.add_argument("--overlap", type=_duration, default=timedelta(hours=24), help="how long the old one stays; 24h")
        _add_output(rotate)

        revoke = verbs.add_parser("revoke", help="refuse keys from now on, for ever")
        revoke.add_argument("keys", nargs="+", metavar="key", help="id, or the start of an id or key")

    def handle(self, *args: Any, **options: Any) -> None:
        verbs = {"create": self._create, "list": self._list, "rotate": self._rotate, "revoke": self._revoke}
        try:
            with transaction.atomic():  # also: a key whose text could not be handed over is not made
                verbs[options["verb"]](options)
        except issuing.IssuingError as error:
            raise CommandError(f"{error.field}: {error.message}") from error

    def _create(self, options: dict[str, Any]) -> None:
        tenant = named.tenant(options["tenant"])
        _check_known(tenant, "alias", options["alias"] or (), tenant.aliases.values_list("name", flat=True))
        nameable = ContentPolicy.objects.nameable_by(tenant)
        _check_known(tenant, "policy", options["policy"], nameable.values_list("name", flat=True))
        terms = issuing.Terms(
            name=options["name"],
            scopes=options["scope"] or issuing.SCOPES_DEFAULT,
            aliases=options["alias"],
            policies=options["policy"],
            networks=options["network"],
            error_dialect=options["dialect"],
            expires_at=_moment(options["expires"], tenant),
        )
        key, text = issuing.issue(tenant, terms, actor=None, actor_label="command: keys create")
        self._hand_over(key, text, options)
        self._say(f"Made {key} for {tenant}. Its text is shown this once.")

    def _list(self, options: dict[str, Any]) -> None:
        rows = ApiKey.objects.select_related("tenant").order_by("tenant__slug", "name", "created_at")
        if options["tenant"]:
            rows = rows.for_tenant(named.tenant(options["tenant"]))
        facts = [_facts(key) for key in rows]
        if options["json"]:
            self.stdout.write(json.dumps(facts, cls=DjangoJSONEncoder))
            return
        self.stdout.write(table(facts, ("id", "tenant", "name", "hint", "state", "scopes", "expires_at", "last_used_at")))

    def _rotate(self, options: dict[str, Any]) -> None:
        old = _key(options["key"])
        new, text = issuing.rotate(old, overlap=options["overlap"], actor=None, actor_label="command: keys rotate")
        self._hand_over(new, text, options)
        self._say(f"Made {new}; the old {old} works until {cell(old.expires_at)}.")

    def _revoke(self, options: dict[str, Any]) -> None:
        for key in [_key(reference) for reference in options["keys"]]:
            done = issuing.revoke(key, actor=None, actor_label="command: keys revoke")
            self._say(f"Revoked {key}." if done else f"{key} was revoked before.")

    def _hand_over(self, key: ApiKey, text: str, options: dict[str, Any]) -> None:
        out: Path | None = options["out"]
        if out is not None:
            _write_private(out, text)
        if options["json"]:
            place = {"key": text} if out is None else {"out": str(out)}
            self.stdout.write(json.dumps(_facts(key) | place, cls=DjangoJSONEncoder))
        elif out is None:
            self.stdout.write(text)
        self.stdout.flush()

    def _say(self, text: str) -> None:
        self.stderr.write(text, self.style.SUCCESS)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the key into this new file (mode 0600), not to stdout")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _check_known(tenant: Tenant, kind: str, names: Sequence[str], known: Iterable[str]) -> None:
    there = set(known)
    if unknown := sorted(set(names) - there):
        raise CommandError(f"{tenant} has no {kind} {', '.join(unknown)}. It has: {', '.join(sorted(there)) or 'none yet'}.")


def _key(reference: str) -> ApiKey:
    """The one key that `reference` means: an id or its start, a hint, the start of a key's text, or the whole of it."""
    start = reference.partition("…")[0]
    if start.startswith(PREFIX):
        lookup = start[len(PREFIX) :][:LOOKUP_LENGTH]
        found, length = Q(lookup_id__startswith=lookup, is_imported=False), len(lookup)
    else:
        found, length = Q(id_text__startswith=start.lower()), len(start)
        if is_importable(start):
            found |= Q(lookup_id__in=[lookup_id(start, pepper) for pepper in peppers(settings.KEY_PEPPERS)])
    # The reference may be a key's whole text: it is not said back.
    if length < REFERENCE_MIN_LENGTH:
        raise CommandError(f"Name a key by {REFERENCE_MIN_LENGTH} characters or more; `keys list` shows the ids.")
    rows = ApiKey.objects.select_related("tenant").annotate(id_text=Cast("id", CharField())).filter(found)[:10]
    if not rows:
        raise CommandError("No such key; `keys list` shows the ids.")
    if len(rows) > 1:
        raise CommandError("Which key? " + "; ".join(f"{row.id} is {row} of {row.tenant}" for row in rows))
    return rows[0]


def _facts(key: ApiKey) -> dict[str, Any]:
    names = "name hint state scopes aliases policies networks error_dialect created_at expires_at revoked_at last_used_at"
    return {"id": key.id, "tenant": key.tenant.slug} | {name: getattr(key, name) for name in names.split()}


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,5})([smhdw])", text, re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(f"“{text}” is no duration; examples are 30m, 24h, 90d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _expiry(text: str) -> timedelta | date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return _duration(text)


def _moment(expiry: timedelta | date | None, tenant: Tenant) -> datetime | None:
    """A duration counts from now, a day to its end in the tenant's time zone."""
    if expiry is None or isinstance(expiry, timedelta):
        return None if expiry is None else timezone.now() + expiry
    return datetime.combine(expiry, time.max, ZoneInfo(tenant.time_zone))


def _write_private(path: Path, text: str) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text + "\n")
    except FileExistsError:
        raise CommandError(f"{path} exists already: name a new file.") from None
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}.") from error
