"""How many answers may run at once: a few a person, over all processes of the portal, and a share of this one's connections."""

import secrets
import threading
from typing import Final

from django.core.cache import cache

from accounts.models import User

AT_ONCE: Final = 2  # of a person: two aliases side by side
# Of this process, whose server holds 1000 connections: pages are served however many answers run.
AT_ONCE_HERE: Final = 100
_here: Final = threading.BoundedSemaphore(AT_ONCE_HERE)


class Turn:
    """Held until release(), which may be called again. A process that dies leaves it to its end."""

    def __init__(self, name: str, token: str) -> None:
        self._name, self._token = name, token
        self._lock = threading.Lock()

    def release(self) -> None:
        if self._lock.acquire(blocking=False):  # never given back: the second time there is nothing to do
            _here.release()
            if cache.get(self._name) == self._token:
                cache.delete(self._name)


def take(person: User, *, for_s: float) -> Turn | None:
    """None: the person, or this process, has as many as may be. for_s: the longest that it can be held."""
    if not _here.acquire(blocking=False):
        return None
    token = secrets.token_hex(8)
    for place in range(AT_ONCE):
        name = f"playground:turn:{person.pk}:{place}"
        if cache.add(name, token, round(for_s) + 10):
            return Turn(name, token)
    _here.release()
    return None
