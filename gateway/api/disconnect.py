"""Watches a client's socket while its call runs: a WSGI application otherwise learns of a vanished client when it writes."""

import contextlib
import socket
from collections.abc import Callable
from typing import Any, Final

import gevent

from gateway.server.reply import READABLE

_POLL_S: Final = 0.25
_READABLE: Final = 1  # libev's EV_READ
# include/net/tcp_states.h: the peer may still read from us in these; every other state means that it has ended.
_TCP_ESTABLISHED: Final = 1


def watch(environ: dict[str, Any], on_gone: Callable[[], None]) -> Callable[[], None]:
    """Call on_gone once, in a greenlet of its own, when the client has closed, reset or half-closed its connection.

    A half-close counts as gone, as it does for vLLM. Returns the function that ends the watch; call it when the answer
    is complete. Without a socket in the environ (tests) nothing is watched.
    """
    client = environ.get("gunicorn.socket")
    if client is None:
        return lambda: None
    return _Watch(client, environ.get(READABLE), on_gone).stop


def _nobody() -> None:
    pass


class _Watch:
    """Costs nothing but a watcher of the loop until the client says something: a greenlet that waits cost a call 5 % of its
    CPU time (2026-11)."""

    __slots__ = ("_client", "_follower", "_is_own", "_on_gone", "_readable")

    def __init__(self, client: Any, readable: Any, on_gone: Callable[[], None]) -> None:
        """readable: the connection's own watcher, where it has one to lend."""
        self._client = client
        self._on_gone = on_gone
        self._follower: Any = None
        self._is_own = readable is None
        self._readable = readable
        if readable is None and (descriptor := client.fileno()) >= 0:
            self._readable = gevent.get_hub().loop.io(descriptor, _READABLE)
        if self._readable is None:
            self._follow()
        else:
            self._readable.start(self._follow)

    def stop(self) -> None:
        """Before the socket is closed. Once more is harmless."""
        self._unwatch()
        self._on_gone = _nobody  # whose call holds this: a circle would stay, with all the call held, until the collector comes
        if self._follower is not None:
            self._follower.kill(block=False)

    def _follow(self) -> None:
        """In the loop, which must not wait: something has come, a further request or the end."""
        self._unwatch()
        self._follower = gevent.spawn(_run, self._client, self._on_gone)

    def _unwatch(self) -> None:
        if self._readable is not None:
            self._readable.stop()
            if self._is_own:
                self._readable.close()
            self._readable = None


def _run(client: Any, on_gone: Callable[[], None]) -> None:
    with contextlib.suppress(OSError, ValueError):
        while _is_there(client):
            # Bytes of a further request lie in front of a FIN that may follow: reading cannot show it, the state can.
            gevent.sleep(_POLL_S)
    on_gone()


def _is_there(client: Any) -> bool:
    if not client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
        return False
    state: int = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state == _TCP_ESTABLISHED
