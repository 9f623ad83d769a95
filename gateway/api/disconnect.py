"""Watches a client's socket while its call runs: a WSGI application otherwise learns of a vanished client when it writes."""

import contextlib
import socket
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.socket import wait_read

_POLL_S: Final = 0.25
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
    watcher = gevent.spawn(_run, client, on_gone)
    return lambda: watcher.kill(block=False)


def _run(client: Any, on_gone: Callable[[], None]) -> None:
    with contextlib.suppress(OSError, ValueError):
        wait_read(client.fileno())
        while _is_there(client):
            # Bytes of a further request lie in front of a FIN that may follow: reading cannot show it, the state can.
            gevent.sleep(_POLL_S)
    on_gone()


def _is_there(client: Any) -> bool:
    if not client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
        return False
    state: int = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state == _TCP_ESTABLISHED
