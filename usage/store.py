"""Connections to Redis or Valkey: built here, with time-outs that a frozen server cannot stretch."""

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import UnixDomainSocketConnection
from redis.exceptions import RedisError
from redis.retry import Retry

# redis-py's own defaults (5 s, 10 retries) hang 45 s on a frozen server (measured 2026-11).
TIMEOUT_S = 0.25


class StoreUnavailable(Exception):
    """Redis is out, frozen, full or read-only: the caller decides what then."""


class _UnixSocket(UnixDomainSocketConnection):
    """Where the server does not accept in time, redis-py 8.1 asks for these, and would raise an AttributeError (2026-11)."""

    host, port = "", 0


def connect(url: str, *, max_connections: int = 1024, timeout_s: float = TIMEOUT_S, retries: int = 1) -> redis.Redis:
    """A client with its own pool; replies are bytes. Connects on first use, so that building it never fails.

    One retry, because a pooled connection may have died with the server's last restart. Raises redis.RedisError on use.
    """
    its_class: dict[str, Any] = {"connection_class": _UnixSocket} if url.startswith("unix:") else {}
    return redis.Redis.from_url(
        url,
        max_connections=max_connections,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), retries),
        retry_on_error=[redis.exceptions.ConnectionError],
        health_check_interval=0,
        **its_class,
    )


__all__ = ["TIMEOUT_S", "RedisError", "StoreUnavailable", "connect"]
