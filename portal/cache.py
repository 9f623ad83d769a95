"""Django's cache: Redis, and this process's own memory while Redis is out. What it keeps may be lost at any time."""

import time
from typing import Any, Final

from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

from usage.store import TIMEOUT_S

REST_S: Final = 5.0  # how long Redis is left alone after it gave no answer


class EnduringCache(RedisCache):
    """Counts of failed sign-ins live here. Refusing everybody while Redis is out would keep operators from mending it, and
    counting nothing would let anybody guess: so each worker goes on counting by itself, from nothing.
    """

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        options = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S} | params.get("OPTIONS", {})
        super().__init__(server, params | {"OPTIONS": options})
        self._memory = LocMemCache("while-redis-is-out", params)
        self._rests_until_s = 0.0

    def _ask(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        if time.monotonic() >= self._rests_until_s:
            try:
                return getattr(super(), verb)(*args, **kwargs)
            except RedisError:
                self._rests_until_s = time.monotonic() + REST_S
        return getattr(self._memory, verb)(*args, **kwargs)

    def add(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("add", *args, **kwargs)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("get", *args, **kwargs)

    def set(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("set", *args, **kwargs)

    def touch(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("touch", *args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("delete", *args, **kwargs)

    def incr(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._ask("incr", *args, **kwargs)
        except ValueError:  # the key was made on the other side, before Redis went or came
            self.add(args[0] if args else kwargs["key"], 1)
            return 1

    def get_many(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("get_many", *args, **kwargs)

    def set_many(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("set_many", *args, **kwargs)

    def delete_many(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("delete_many", *args, **kwargs)

    def has_key(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("has_key", *args, **kwargs)

    def clear(self) -> None:
        """Django's own empties the whole database, which is not the cache's alone: limits and the journal live there."""
        raise NotImplementedError
