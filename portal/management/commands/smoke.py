"""`manage.py smoke`: calls a running installation as a client would; a table, and exit code 1 when something is wrong.

Without --key it makes one for the demo tenant, good for five minutes, and revokes it in the end.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from django.utils import timezone
from uuid_utils.compat import uuid7

from accounts import audit, issuing
from accounts.models import Tenant
from portal import home, smoke


class Command(BaseCommand):
    help = "Test a running installation from outside, in about ten seconds."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--base-url", metavar="URL", help="the gateway (default: the one that `up` runs here)")
        parser.add_argument("--key", help="an API key with the scopes chat and models (default: one made for this)")
        parser.add_argument("--tenant", default="demo", help="without --key: whose key is made (default: %(default)s)")

    def handle(self, *args: Any, **options: Any) -> None:
        running = home.addresses(settings.SEKISHO_HOME)
        base_url = options["base_url"] or (running.api if running else settings.GATEWAY_PUBLIC_URL)
        if options["key"]:
            is_good = self._show(base_url, options["key"])
        else:
            with _passing_key(options["tenant"]) as key:
                is_good = self._show(base_url, key)
        if not is_good:
            sys.exit(1)

    def _show(self, base_url: str, key: str) -> bool:
        self.stdout.write(f" {base_url}")
        results = []
        for result in smoke.run(base_url, key):
            results.append(result)
            sign = "✔" if result.is_good else "✖"
            self.stdout.write(f" {sign} {result.name:<22}{result.took_ms:>7} ms   {result.detail}")
        bad = sum(not result.is_good for result in results)
        self.stdout.write(f" {len(results) - bad} of {len(results)} good")
        return bad == 0


@contextmanager
def _passing_key(slug: str) -> Iterator[str]:
    """A key for this test alone: expires in five minutes, revoked at the end of the block."""
    by = audit.By(actor=None, actor_label="command: smoke")
    expires_at = timezone.now() + timedelta(minutes=5)
    try:
        tenant = Tenant.objects.get(slug=slug)
        key, text = issuing.issue(tenant, issuing.Terms(name=f"smoke-{uuid7()}", expires_at=expires_at), **by)
    except Tenant.DoesNotExist:
        raise CommandError(f"There is no tenant {slug}: name one with --tenant, or give a --key.") from None
    except issuing.IssuingError as error:
        raise CommandError(f"No key for {slug}: {error.message} Give one with --key.") from error
    except DatabaseError as error:
        raise CommandError("The database does not answer, so no key can be made: give one with --key.") from error
    try:
        yield text
    finally:
        issuing.revoke(key, **by)
