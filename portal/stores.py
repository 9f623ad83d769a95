"""The stores: do they answer, are they new enough, may we use them? A bad finding says what to do."""

from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from redis import Redis
from redis.exceptions import RedisError

from portal.settings import env
from usage.store import connect

POSTGRES_OLDEST: Final = 15
REDIS_OLDEST: Final = 7
START: Final = gettext_lazy("Start it: deploy/up")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor. remedy: what to do when it is not good."""

    name: str
    is_good: bool
    detail: str
    remedy: str = ""


def database() -> Finding:
    """As database_in_use, over a plain connection: the pool would swallow the reason. For commands: it stays without a pool."""
    connection.settings_dict.get("OPTIONS", {}).pop("pool", None)
    return database_in_use()


def database_in_use() -> Finding:
    """Version, and the right to make tables."""
    remedy = str(START) if env.starts_postgres() else _("Is it running, and DATABASE_URL right?")
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('server_version'), has_schema_privilege(current_schema(), 'CREATE')")
            version, may_create = cursor.fetchone() or ("0", False)
    except DatabaseError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return Finding("PostgreSQL", False, _("does not answer: %(reason)s") % {"reason": reason}, remedy)
    if int(version.partition(".")[0]) < POSTGRES_OLDEST:
        return Finding("PostgreSQL", False, version, _("Use version %(oldest)d or later.") % {"oldest": POSTGRES_OLDEST})
    if not may_create:
        return Finding("PostgreSQL", False, _("no right to make tables"), _("GRANT CREATE ON SCHEMA public TO the user."))
    return Finding("PostgreSQL", True, version)


def unapplied_migrations() -> list[str]:
    """Names of the migrations that the database lacks."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [str(migration) for migration, _backwards in plan]


def redis() -> Finding:
    """Version, Lua and streams, and that it never drops keys by itself: quotas and configuration live there."""
    remedy = str(START) if env.starts_valkey() else _("Is it running, and REDIS_URL right?")
    try:
        with connect(settings.REDIS_URL, max_connections=2, timeout_s=2) as client:
            return _redis_finding(client)
    except (RedisError, ValueError) as error:
        return Finding(
            "Redis", False, _("does not answer: %(reason)s") % {"reason": f"{type(error).__name__}: {error}"}, remedy
        )


def _redis_finding(client: Redis) -> Finding:
    info = client.info()
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version", info["redis_version"]))
    if int(version.partition(".")[0]) < REDIS_OLDEST:
        return Finding(name, False, version, _("Use version %(oldest)d or later.") % {"oldest": REDIS_OLDEST})
    probe = "sekisho:doctor"
    client.eval("redis.call('XADD', KEYS[1], '*', 'a', 'b') return redis.call('DEL', KEYS[1])", 1, probe)
    if info.get("maxmemory") and info.get("maxmemory_policy") != "noeviction":
        detail = _("drops keys when full (%(policy)s)") % {"policy": info["maxmemory_policy"]}
        return Finding(name, False, detail, _("Set maxmemory-policy noeviction."))
    return Finding(name, True, version)
