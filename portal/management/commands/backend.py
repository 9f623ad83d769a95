"""`manage.py backend list|drain|resume`: what backends do, and the switch that takes one out of service.

Stdout holds the list, or its JSON, and nothing else; words for people go to stderr.
"""

import json
import time
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts import audit
from gateway.config import draining
from gateway.models import Backend, Deployment
from gateway.routing import in_flight
from portal.terminal import table
from usage.store import RedisError, connect

ASK_EVERY_S: Final = 0.5
COLUMNS: Final = ("name", "url", "state", "calls", "deployments")


class Command(BaseCommand):
    help = "List backends; drain one, so that it ends its calls and gets no new ones; resume it."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        listing = verbs.add_parser("list", help="show backends and the calls each has now")
        listing.add_argument("--json", action="store_true", help="print one JSON list")
        drain = verbs.add_parser("drain", help="give it no new calls")
        drain.add_argument("name")
        drain.add_argument("--wait", action="store_true", help="return when its last call has ended")
        resume = verbs.add_parser("resume", help="give it calls again")
        resume.add_argument("name")

    def handle(self, *args: Any, **options: Any) -> None:
        with connect(settings.REDIS_URL, max_connections=2) as client:
            self._redis = client
            {"list": self._list, "drain": self._drain, "resume": self._resume}[options["verb"]](options)

    def _list(self, options: dict[str, Any]) -> None:
        try:
            calls: dict[str, int] | None = in_flight.read(self._redis)
        except RedisError:
            calls = None
        rows = Backend.objects.prefetch_related("memberships__deployment")
        facts = [_facts(row, calls) for row in rows]
        self.stdout.write(json.dumps(facts) if options["json"] else table(facts, COLUMNS))

    def _drain(self, options: dict[str, Any]) -> None:
        backend = _backend(options["name"])
        is_changed = draining.drain(backend, **_by("drain"))
        self._say(f"{backend} drains: it gets no new calls." if is_changed else f"{backend} was draining already.")
        for deployment in Deployment.objects.filter(members__backend=backend):
            if not deployment.members.filter(backend__is_draining=False).exists():
                self.stderr.write(f"{deployment} has no other backend that takes calls.", self.style.WARNING)
        if options["wait"]:
            try:
                self._wait(backend)
            except KeyboardInterrupt:
                raise CommandError(f"No longer waiting; {backend} drains on.", returncode=130) from None

    def _resume(self, options: dict[str, Any]) -> None:
        backend = _backend(options["name"])
        is_changed = draining.resume(backend, **_by("resume"))
        self._say(f"{backend} gets calls again." if is_changed else f"{backend} was not draining.")

    def _wait(self, backend: Backend) -> None:
        """Until there was no call for as long as a worker may be without a word of those it has."""
        idle_since: float | None = None
        told: int | None = -1  # nothing yet; None: that Redis is out
        while idle_since is None or time.monotonic() - idle_since < in_flight.STALE_S:
            try:
                calls: int | None = in_flight.read(self._redis)[backend.name]
            except RedisError:
                calls = None
            if calls != told:
                told = calls
                self._say("Redis does not answer: waiting for it." if calls is None else f"Calls in flight: {calls}")
            if calls != 0 or not draining.is_published():
                idle_since = None
            elif idle_since is None:
                idle_since = time.monotonic()
            if not Backend.objects.filter(pk=backend.pk, is_draining=True).exists():
                raise CommandError(f"{backend} drains no longer: somebody has resumed it.")
            time.sleep(ASK_EVERY_S)
        self._say(f"{backend} is drained.")

    def _say(self, text: str) -> None:
        self.stderr.write(text, self.style.SUCCESS)


def _by(verb: str) -> audit.By:
    return {"actor": None, "actor_label": f"command: backend {verb}"}


def _backend(name: str) -> Backend:
    try:
        return Backend.objects.get(name=name)
    except Backend.DoesNotExist:
        names = ", ".join(Backend.objects.values_list("name", flat=True))
        raise CommandError(f"No backend “{name}”. There are: {names or 'none yet'}.") from None


def _facts(row: Backend, calls: dict[str, int] | None) -> dict[str, Any]:
    """calls None: unknown, Redis does not answer."""
    return {
        "name": row.name,
        "url": row.url,
        "state": "draining" if row.is_draining else "serving",
        "calls": None if calls is None else calls.get(row.name, 0),
        "deployments": sorted(member.deployment.name for member in row.memberships.all()),
    }
