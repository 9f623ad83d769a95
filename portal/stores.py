"""The stores: do they answer, are they new enough, may we use them? A bad finding says what to do."""

from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from redis import Redis
from redis.exceptions import RedisError

from portal.settings import env
from usage.store import connect

POSTGRES_OLDEST: Final = 15
REDIS_OLDEST: Final = 7
START: Final = "Start it: deploy/up"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor. remedy: what to do when it is not good."""

    name: str
    is_good: bool
    detail: str
    remedy: str = ""


def database() -> Finding:
    """Version, and the right to make tables. Asked over a plain connection: the pool would swallow the reason."""
    connection.settings_dict.get("OPTIONS", {}).pop("pool", None)
    remedy = START if env.starts_postgres() else "Is it running, and DATABASE_URL right?"
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('server_version'), has_schema_privilege(current_schema(), 'CREATE')")
            version, may_create = cursor.fetchone() or ("0", False)
    except DatabaseError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return Finding("PostgreSQL", False, f"does not answer: {reason}", remedy)
    if int(version.partition(".")[0]) < POSTGRES_OLDEST:
        return Finding("PostgreSQL", False, version, f"Use version {POSTGRES_OLDEST} or later.")
    if not may_create:
        return Finding("PostgreSQL", False, "no right to make tables", "GRANT CREATE ON SCHEMA public TO the user.")
    return Finding("PostgreSQL", True, version)


def unapplied_migrations() -> list[str]:
    """Names of the migrations that the database lacks."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [str(migration) for migration, _backwards in plan]


def redis() -> Finding:
    """Version, Lua and streams, and that it never drops keys by itself: quotas and configuration live there."""
    remedy = START if env.starts_valkey() else "Is it running, and REDIS_URL right?"
    try:
        with connect(settings.REDIS_URL, max_connections=2, timeout_s=2) as client:
            return _redis_finding(client)
    except (RedisError, ValueError) as error:
        return Finding("Redis", False, f"does not answer: {type(error).__name__}: {error}", remedy)


def _redis_finding(client: Redis) -> Finding:
    info = client.info()
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version", info["redis_version"]))
    if int(version.partition(".")[0]) < REDIS_OLDEST:
        return Finding(name, False, version, f"Use version {REDIS_OLDEST} or later.")
    probe = "sekisho:doctor"
    client.eval("redis.call('XADD', KEYS[1], '*', 'a', 'b') return redis.call('DEL', KEYS[1])", 1, probe)
    if info.get("maxmemory") and info.get("maxmemory_policy") != "noeviction":
        return Finding(name, False, f"drops keys when full ({info['maxmemory_policy']})", "Set maxmemory-policy noeviction.")
    return Finding(name, True, version)
