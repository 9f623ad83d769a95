"""The condition of the platform: each part looked at, with a word and what to do; for the page of its health.

What the doctor looks at too is looked at by the doctor's own checks. With Redis out the rest is told all the same.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final, Literal

import redis
from celery.schedules import crontab
from django.conf import settings
from django.db import connection
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from gateway.models import ConfigChange
from gateway.presence import Presence, present
from portal import checkup, jobs, stores
from portal.stores import Finding
from usage import months
from usage.store import RedisError, connect

Level = Literal["ok", "warn", "error", ""]
QUEUE: Final = f"{settings.CELERY_BROKER_TRANSPORT_OPTIONS['global_keyprefix']}celery"
QUEUE_LONG: Final = 100  # tasks: the schedule sends some two a second, and each expires
PENDING_MANY: Final = 1000  # ended calls that Redis did not confirm yet
SNAPSHOT_OLD_S: Final = 10.0
BEAT_LATE_S: Final = 30.0
AHEAD: Final = timedelta(days=7)  # by when the next month's table should be there
DAY_S: Final = 86_400.0
LATE_S: Final = 60.0  # beyond twice the interval of a job
NAMES: Final[dict[str, Promise]] = {
    "publish-configuration": gettext_lazy("Publish the configuration"),
    "restore-counters": gettext_lazy("Restore counters of limits"),
    "record-last-used": gettext_lazy("Write down when keys were used"),
    "count-backends": gettext_lazy("Read what the backends count"),
    "clear-exports": gettext_lazy("Remove exports past their time"),
    "post-journal": gettext_lazy("Post ended calls to the ledger"),
    "reap": gettext_lazy("End the calls of dead workers"),
    "end-playground-keys": gettext_lazy("End the playground keys nobody uses"),
    "make-partitions": gettext_lazy("Make the ledger's coming months"),
    "enforce-retention": gettext_lazy("Remove usage past its time"),
    "reconcile": gettext_lazy("Compare ledger, totals and counters"),
    "watch-alerts": gettext_lazy("Look whether an alert is due"),
    "deliver-alerts": gettext_lazy("Send alerts by mail and to webhooks"),
    "prune-alerts": gettext_lazy("Remove alerts past their time"),
}


@dataclass(frozen=True, slots=True)
class Part:
    """level "": nobody can tell now."""

    name: str
    level: Level
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """every: as the schedule says. run None: not since Redis was emptied, or a week ago."""

    name: str
    label: str
    every: str
    level: Level
    run_at: datetime | None
    took_ms: int
    state: str


@dataclass(frozen=True, slots=True)
class Worker:
    name: str
    presence: Presence
    begun_at: datetime


@dataclass(frozen=True, slots=True)
class Condition:
    parts: list[Part]
    workers: list[Worker]
    jobs: list[Job]
    partitions: list[str]
    version: str

    @property
    def level(self) -> Level:
        """The worst of all."""
        levels = {part.level for part in self.parts} | {job.level for job in self.jobs}
        return "error" if "error" in levels else "warn" if "warn" in levels else "ok"


@dataclass(frozen=True, slots=True)
class Settled:
    """What changes seldom and costs queries to find out: a page that renews itself holds it for a minute. In one language."""

    database: Part
    tables: Part
    published: Part
    partitions: list[str]


@dataclass(frozen=True, slots=True)
class _Told:
    """What Redis holds of all this. now_s: by its own clock."""

    now_s: float
    workers: Mapping[str, Presence]
    runs: Mapping[str, jobs.Run]
    sent: Mapping[str, float]
    queued: int


def settled() -> Settled:
    return Settled(
        _part(stores.database_in_use(), more=_size()),
        _part(checkup.migrations()),
        _part(checkup.published()),
        months.partitions(),
    )


def condition(held: Settled | None = None) -> Condition:
    """held: what need not be found out anew; then the database is asked one thing."""
    held = held or settled()
    store = stores.redis()
    told = _told() if store.is_good else None
    parts = [
        held.database,
        _part(store),
        held.tables,
        _configuration(held.published, is_redis_out=told is None),
        _gateway(told),
        _spool(told),
        _part(checkup.journal()) if told else Part(_("Journal"), "", _("unknown, Redis does not answer")),
        *_celery(told),
        _partitions(held.partitions),
    ]
    workers = sorted((told.workers if told else {}).items(), key=lambda item: item[1].begun_s)
    return Condition(
        parts,
        [Worker(name[-8:], one, datetime.fromtimestamp(one.begun_s, timezone.get_current_timezone())) for name, one in workers],
        [_job(name, entry, told) for name, entry in settings.CELERY_BEAT_SCHEDULE.items()],
        held.partitions,
        settings.VERSION,
    )


def _told() -> _Told | None:
    try:
        with connect(settings.REDIS_URL, max_connections=1) as client:
            return _read(client)
    except RedisError:
        return None


def _read(client: redis.Redis) -> _Told:
    seconds, microseconds = client.time()
    now_s = seconds + microseconds / 1e6
    runs, sent = jobs.last_runs(client)
    queued: Any = client.llen(QUEUE)
    return _Told(now_s, present(client, now_s=now_s), runs, sent, int(queued))


def _part(finding: Finding, more: str = "") -> Part:
    detail = f"{finding.detail}; {more}" if more and finding.is_good else finding.detail
    return Part(finding.name, "ok" if finding.is_good else "error", detail, finding.remedy)


def _size() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_size_pretty(pg_database_size(current_database()))")
        row = cursor.fetchone()
    return str(row[0]) if row else ""


def _configuration(published: Part, *, is_redis_out: bool) -> Part:
    waiting = ConfigChange.objects.count()
    name = _("Configuration")
    if waiting:
        told = ngettext("%(number)d change waits to be published", "%(number)d changes wait to be published", waiting)
        remedy = _("The worker publishes every 2 s, once Redis answers.")
        return Part(name, "warn", told % {"number": waiting}, remedy)
    if is_redis_out:
        return Part(name, "", _("unknown, Redis does not answer"))
    return published


def _gateway(told: _Told | None) -> Part:
    name = _("Gateway")
    if told is None:
        return Part(name, "", _("unknown, Redis does not answer"), _("Its workers serve on with the configuration they know."))
    workers = told.workers.values()
    if not workers:
        return Part(name, "error", _("no worker tells of itself"), _("Start it: deploy/up"))
    detail = ngettext("%(number)d worker", "%(number)d workers", len(workers)) % {"number": len(workers)}
    versions = sorted({worker.version for worker in workers})
    if any(worker.snapshot_age_s is None or worker.snapshot_age_s > SNAPSHOT_OLD_S for worker in workers):
        remedy = _("A worker does not follow changes of the configuration: look into its log.")
        return Part(name, "error", detail, remedy)
    if versions != [settings.VERSION]:
        facts = {"theirs": ", ".join(versions), "own": settings.VERSION}
        told_so = _("The gateway is at %(theirs)s, the portal at %(own)s: end the upgrade, or restart what is behind.")
        return Part(name, "warn", detail, told_so % facts)
    return Part(name, "ok", _("%(workers)s, version %(version)s") % {"workers": detail, "version": versions[0]})


def _spool(told: _Told | None) -> Part:
    name = _("Spool")
    if told is None or not told.workers:
        return Part(name, "", _("not known"))
    workers = told.workers.values()
    pending, lost = sum(worker.pending for worker in workers), sum(worker.lost for worker in workers)
    detail = ngettext("%(number)d ended call is kept on disk", "%(number)d ended calls are kept on disk", pending)
    detail %= {"number": pending}
    if lost:
        detail = ngettext("%(number)d ended call was lost", "%(number)d ended calls were lost", lost) % {"number": lost}
        return Part(name, "error", detail, _("The disk was full or gone while Redis was out: give the spool room."))
    if not all(worker.is_spool_writable for worker in workers):
        return Part(name, "error", _("cannot be written"), _("Look at the disk of the gateway's machine: is it full?"))
    if pending > PENDING_MANY:
        return Part(name, "warn", detail, _("They go to Redis once it takes them: look again in a minute."))
    return Part(name, "ok", detail)


def _celery(told: _Told | None) -> list[Part]:
    """Worker, beat and their queue."""
    names = (_("Worker"), _("Beat"), _("Queue"))
    if told is None:
        return [Part(name, "", _("unknown, Redis does not answer")) for name in names]
    now_s = time.time()  # what beat and worker wrote is by the clocks of their machines
    ran_s = min((now_s - run.at_s for run in told.runs.values()), default=None)
    sent_s = min((now_s - at_s for at_s in told.sent.values()), default=None)
    is_beating = sent_s is not None and sent_s < BEAT_LATE_S
    is_working = ran_s is not None and ran_s < BEAT_LATE_S
    start = _("Start it: celery -A portal.celery worker --beat")
    worker = Part(names[0], "ok", _("runs jobs"))
    if not is_working:
        worker = Part(names[0], "error" if is_beating else "", _("has run nothing lately"), start)
    beat = Part(names[1], "ok", _("sends jobs")) if is_beating else Part(names[1], "error", _("has sent nothing lately"), start)
    detail = ngettext("%(number)d job waits", "%(number)d jobs wait", told.queued) % {"number": told.queued}
    is_long = told.queued > QUEUE_LONG
    queue = Part(
        names[2], "warn" if is_long else "ok", detail, _("Run more workers, or look at what holds them.") if is_long else ""
    )
    return [worker, beat, queue]


def _job(name: str, entry: Mapping[str, Any], told: _Told | None) -> Job:
    schedule = entry["schedule"]
    run = told.runs.get(entry["task"]) if told else None
    every_s = DAY_S if isinstance(schedule, crontab) else schedule.total_seconds()
    level: Level = ""
    if run is not None:
        is_late = time.time() - run.at_s > 2 * every_s + LATE_S
        level = "error" if run.state not in ("SUCCESS", "") else "warn" if is_late else "ok"
    return Job(
        name,
        str(NAMES.get(name, name)),
        _time_of_day(schedule) if isinstance(schedule, crontab) else _interval(every_s),
        level,
        datetime.fromtimestamp(run.at_s, timezone.get_current_timezone()) if run else None,
        round(run.took_s * 1000) if run else 0,
        run.state if run else "",
    )


def _time_of_day(schedule: crontab) -> str:
    """Of a job that runs daily by the clock, which is that of UTC."""
    hour, minute = min(schedule.hour), min(schedule.minute)  # type: ignore[attr-defined] # celery-types leaves both out
    return _("every day at %(time)s UTC") % {"time": f"{hour:02}:{minute:02}"}


def _interval(every_s: float) -> str:
    for size_s, one, many in (
        (86_400, _("every day"), _("every %(number)d days")),
        (3600, _("every hour"), _("every %(number)d hours")),
        (60, _("every minute"), _("every %(number)d minutes")),
    ):
        if every_s >= size_s and every_s % size_s == 0:
            number = int(every_s // size_s)
            return one if number == 1 else many % {"number": number}
    return _("every second") if every_s == 1 else _("every %(number)d seconds") % {"number": every_s}


def _partitions(found: list[str]) -> Part:
    name = _("Ledger's months")
    wanted = [f"{months.LEDGER}_{month:%Y_%m}" for month in _coming()]
    missing = [month.removeprefix(f"{months.LEDGER}_") for month in wanted if month not in found]
    if not found:
        return Part(name, "ok", _("none yet: they are made with the first call"))
    detail = ngettext("%(number)d table", "%(number)d tables", len(found)) % {"number": len(found)}
    if not missing:
        return Part(name, "ok", detail)
    told = _("%(tables)s; missing: %(months)s") % {"tables": detail, "months": ", ".join(missing)}
    return Part(name, "warn", told, _("The worker makes them daily, and when a call needs one."))


def _coming() -> list[date]:
    """The first days of this month and, in its last week, of the next, in UTC."""
    now = timezone.now()
    return sorted({moment.date().replace(day=1) for moment in (now, now + AHEAD)})
