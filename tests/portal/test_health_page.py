"""The page of the platform's health: each part with a word and what to do; with Redis out it works and says so."""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from html import unescape
from typing import Any

import orjson
import pytest
import redis
from django.conf import settings
from django.test import Client, override_settings
from django.utils import timezone, translation

from accounts.models import User
from gateway import presence
from gateway.config import publish
from gateway.models import ConfigChange
from gateway.presence import Presence
from gateway.tasks import publish_configuration
from portal import condition, jobs
from portal.celery import app
from usage import months
from usage.partitions import journal_key
from usage.store import RedisError

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]


@pytest.fixture
def chief(signed_in: SignedIn, operator: User) -> Client:
    return signed_in(operator)


def told(client: Client) -> str:
    answer = client.get("/admin/health/")
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", answer.content.decode())))


def part(name: str) -> condition.Part:
    return next(part for part in condition.condition().parts if part.name == name)


def here(valkey: redis.Redis, worker: str = "0123456789abcdef", **changed: Any) -> None:
    """A worker of the gateway tells of itself."""
    seconds, _ = valkey.time()
    well = Presence(float(seconds), time.time(), settings.VERSION, 0.4, pending=0, lost=0, is_spool_writable=True)
    presence.tell(valkey, worker, replace(well, **changed))


def ran(valkey: redis.Redis, task: str, *, ago_s: float = 0.0, state: str = "SUCCESS") -> None:
    run = {"at_s": time.time() - ago_s, "took_s": 0.25, "state": state}
    valkey.hset(jobs.KEY, f"{task}:ran", orjson.dumps(run))


def test_all_is_well_where_all_is(chief: Client, valkey: redis.Redis) -> None:
    publish.publish_all()
    ConfigChange.objects.all().delete()
    here(valkey)
    ran(valkey, "usage.tasks.post_journal")
    valkey.hset(jobs.KEY, "usage.tasks.post_journal:sent", time.time())
    months.make_ahead(timezone.now())
    page = told(chief)
    assert "All is well" in page
    for shown in ("PostgreSQL", "Valkey", "1 worker, version", "89abcdef", "250 ms", "usage_usagerecord_", "every second"):
        assert shown in page, shown


def test_its_part_is_the_whole_page_renewed_and_asks_the_database_one_thing_more_than_the_session_does(
    chief: Client, valkey: redis.Redis, django_assert_max_num_queries: Any
) -> None:
    part = re.search(r'data-poll hx-get="(/admin/[^"]+)"', chief.get("/admin/health/").content.decode())
    assert part is not None
    ConfigChange.objects.create(kind="platform")
    with django_assert_max_num_queries(5):
        answer = chief.get(part[1])
    page = answer.content.decode()
    assert page.lstrip().startswith('<div id="health"')
    assert "waits to be published" in page
    assert "All is well" not in page


def test_its_part_is_for_operators_alone(signed_in: SignedIn, acme_owner: User) -> None:
    assert signed_in(acme_owner).get("/admin/health/live/").status_code == 404


@override_settings(REDIS_URL="unix:///nowhere/at/all.sock")
def test_it_works_and_says_so_when_redis_is_out(chief: Client) -> None:
    page = told(chief)
    assert "Something is wrong" in page
    assert "does not answer" in page
    assert "unknown, Redis does not answer" in page


def test_a_gateway_that_does_not_run_is_an_error(valkey: redis.Redis) -> None:
    found = part("Gateway")
    assert (found.level, found.remedy) == ("error", "Start it: deploy/up")


@pytest.mark.parametrize(
    ("changed", "name", "level"),
    [
        ({"version": "0.0.1"}, "Gateway", "warn"),
        ({"snapshot_age_s": None}, "Gateway", "error"),
        ({"snapshot_age_s": 60.0}, "Gateway", "error"),
        ({"pending": 5}, "Spool", "ok"),
        ({"pending": 100_000}, "Spool", "warn"),
        ({"lost": 1}, "Spool", "error"),
        ({"is_spool_writable": False}, "Spool", "error"),
    ],
)
def test_what_a_worker_tells_is_judged(valkey: redis.Redis, changed: dict[str, Any], name: str, level: str) -> None:
    here(valkey, **changed)
    found = part(name)
    assert found.level == level
    assert bool(found.remedy) == (level != "ok")


def test_a_worker_that_fell_silent_is_not_counted_and_then_forgotten(valkey: redis.Redis) -> None:
    seconds, _ = valkey.time()
    here(valkey, "dead", at_s=seconds - 2 * presence.STALE_S)
    assert presence.present(valkey, now_s=seconds) == {}
    here(valkey, "long-dead", at_s=seconds - 2 * presence.GONE_S)
    here(valkey, "alive")
    assert set(valkey.hkeys(presence.KEY)) == {b"dead", b"alive"}
    presence.leave(valkey, "alive")
    assert set(valkey.hkeys(presence.KEY)) == {b"dead"}


def test_a_change_that_waits_is_told(valkey: redis.Redis) -> None:
    ConfigChange.objects.create(kind="platform")
    found = part("Configuration")
    assert (found.level, found.detail) == ("warn", "1 change waits to be published")


def test_a_late_journal_is_an_error(valkey: redis.Redis) -> None:
    valkey.xadd(journal_key(0), {"event": "x"}, id=f"{int((time.time() - 600) * 1000)}-0")
    found = part("Journal")
    assert found.level == "error"
    assert "1 ended calls wait" in found.detail


def test_a_worker_that_stands_still_is_told_apart_from_beat(valkey: redis.Redis) -> None:
    ran(valkey, "usage.tasks.post_journal", ago_s=600)
    valkey.hset(jobs.KEY, "usage.tasks.post_journal:sent", time.time())
    assert (part("Worker").level, part("Beat").level) == ("error", "ok")
    valkey.delete(jobs.KEY)
    assert (part("Worker").level, part("Beat").level) == ("", "error")


def test_a_long_queue_is_told(valkey: redis.Redis) -> None:
    valkey.rpush(condition.QUEUE, *(["{}"] * 500))
    assert (part("Queue").level, part("Queue").detail) == ("warn", "500 jobs wait")


def test_the_queue_is_where_celery_keeps_it(valkey: redis.Redis) -> None:
    publish_configuration.apply_async()
    assert valkey.llen(condition.QUEUE) == 1


@pytest.mark.parametrize(
    ("ago_s", "state", "level"), [(1.0, "SUCCESS", "ok"), (1.0, "FAILURE", "error"), (600.0, "SUCCESS", "warn")]
)
def test_each_job_has_its_last_run(valkey: redis.Redis, ago_s: float, state: str, level: str) -> None:
    ran(valkey, "usage.tasks.reap", ago_s=ago_s, state=state)
    by_name = {job.name: job for job in condition.condition().jobs}
    assert by_name.keys() == settings.CELERY_BEAT_SCHEDULE.keys()
    assert (by_name["reap"].level, by_name["reap"].took_ms) == (level, 250)
    assert (by_name["reconcile"].level, by_name["reconcile"].run_at) == ("", None)


@pytest.mark.parametrize(("ago_s", "level"), [(86_400.0, "ok"), (3 * 86_400.0, "warn")])
def test_a_daily_job_says_its_time_and_is_late_after_two_days(valkey: redis.Redis, ago_s: float, level: str) -> None:
    ran(valkey, "usage.tasks.reconcile", ago_s=ago_s)
    (job,) = [job for job in condition.condition().jobs if job.name == "reconcile"]
    assert (job.every, job.level) == ("every day at 17:40 UTC", level)


def test_runs_are_recorded_by_celery_itself(valkey: redis.Redis) -> None:
    @app.task(name="tests.fails")
    def fails() -> None:
        raise ValueError

    try:
        publish_configuration.apply()
        fails.apply()
    finally:
        app.tasks.unregister("tests.fails")
    runs, _ = jobs.last_runs(valkey)
    assert runs["gateway.tasks.publish_configuration"].state == "SUCCESS"
    assert abs(runs["gateway.tasks.publish_configuration"].at_s - time.time()) < 60
    assert runs["tests.fails"].state == "FAILURE"
    assert 0 < valkey.ttl(jobs.KEY) <= jobs.KEPT_S


def test_a_missing_month_is_told(valkey: redis.Redis) -> None:
    months.drop_before(timezone.now() + timedelta(days=366))  # what tests of other processes have committed
    assert part("Ledger's months").level == "ok"  # before the first call there is none
    months.ensure([timezone.now() - timedelta(days=40)])
    found = part("Ledger's months")
    assert (found.level, f"{timezone.now():%Y_%m}" in found.detail) == ("warn", True)
    months.make_ahead(timezone.now())
    assert part("Ledger's months").level == "ok"


def test_checks_speak_the_readers_language(chief: Client, valkey: redis.Redis) -> None:
    with translation.override("ja"):
        assert part("設定").detail == "配布されていません"


def test_presence_of_a_broken_store_is_the_callers_to_handle() -> None:
    client = redis.Redis(unix_socket_path="/nowhere/at/all.sock")
    with pytest.raises(RedisError):
        presence.present(client, now_s=time.time())
    presence.leave(client, "w")


def test_it_takes_few_queries(chief: Client, valkey: redis.Redis, django_assert_max_num_queries: Any) -> None:
    for number in range(20):
        here(valkey, f"worker-{number}")
    with django_assert_max_num_queries(14):
        told(chief)
