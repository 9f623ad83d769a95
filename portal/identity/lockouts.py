"""Who is locked out of signing in, and until when. django-axes counts and decides; here is what it has decided, kept in Redis.

A lock-out is of one account at one client address. While Redis is out the list is not known; axes goes on counting.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Unpack

from axes.handlers.proxy import AxesProxyHandler
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest
from redis import Redis
from redis.exceptions import RedisError

from accounts import audit
from usage.store import connect

KEY: Final = "sekisho:lockouts"  # a sorted set: `e-mail address` TAB `client address`, by the Unix second it ends
KEPT: Final = 1000  # the latest: whoever guesses from everywhere does not fill the store


@dataclass(frozen=True, slots=True)
class Lockout:
    email: str
    address: str
    until: datetime


def account_of(request: HttpRequest, credentials: Mapping[str, Any] | None = None) -> str:
    """Whose password is tried, as axes is to count it: capital letters make nobody else."""
    tried = credentials.get("email") if credentials else request.POST.get("login")
    return str(tried or "").strip().lower()


def address_of(request: HttpRequest) -> str:
    """Where from; portal.middleware.client_address has looked behind the proxies."""
    return str(request.META.get("REMOTE_ADDR") or "")


def note(email: str, address: str) -> bool:
    """A lock-out is in force. Did it begin just now? Without Redis it is not listed, and no less in force.

    What is tried may be no address at all: the list shows it to operators, and forgets it when it is over.
    """
    until_s = time.time() + settings.AXES_COOLOFF_TIME.total_seconds()
    try:
        with _store().pipeline() as pipe:
            pipe.zremrangebyscore(KEY, "-inf", time.time())
            pipe.zadd(KEY, {_member(email, address): until_s}, nx=True)
            pipe.zremrangebyrank(KEY, 0, -KEPT - 1)
            pipe.expire(KEY, settings.AXES_COOLOFF_TIME)
            _ended, begun, *_rest = pipe.execute()
    except RedisError:
        return False
    return bool(begun)


def end_of(email: str, address: str) -> datetime:
    """When it ends; the latest it can be where that is not known."""
    latest_s = time.time() + settings.AXES_COOLOFF_TIME.total_seconds()
    try:
        score = _store().zscore(KEY, _member(email, address))
    except RedisError:
        score = None
    return datetime.fromtimestamp(float(score) if score else latest_s, UTC)


def minutes_until(end: datetime) -> int:
    """Begun minutes count whole, so that nobody comes back too early."""
    return max(1, math.ceil((end.timestamp() - time.time()) / 60))


def in_force() -> list[Lockout] | None:
    """The latest first; None while Redis is out."""
    try:
        rows: Any = _store().zrevrangebyscore(KEY, "+inf", time.time(), start=0, num=KEPT, withscores=True)
    except RedisError:
        return None
    return [_lockout(member.decode(), score) for member, score in rows]


def lift(email: str, at: str, /, **by: Unpack[audit.By]) -> bool:
    """Let this account sign in from the address `at` at once. False, and nothing written, when it is not locked out."""
    try:
        was_listed = bool(_store().zrem(KEY, _member(email, at)))
    except RedisError:
        was_listed = False
    AxesProxyHandler.reset_attempts(username=email, ip_address=at)
    if was_listed:
        with transaction.atomic():
            audit.record(verb="lockout.lifted", target=f"person {email}", before={"address": at}, **by)
    return was_listed


def _lockout(member: str, until_s: float) -> Lockout:
    email, _tab, address = member.partition("\t")
    return Lockout(email, address, datetime.fromtimestamp(until_s, UTC))


def _member(email: str, address: str) -> str:
    return f"{email[:254]}\t{address}"


def _store() -> Redis:
    return _connected(settings.REDIS_URL)


@cache
def _connected(url: str) -> Redis:
    return connect(url, max_connections=8)
