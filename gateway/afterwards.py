"""What nobody waits for: done when the loop comes round again, and so once the answer that it tells of has gone out.

A call's line and its metrics are written so: its client waited for them too.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import structlog
from gevent import get_hub

_log = structlog.get_logger("gateway")
_waiting: Final[deque[tuple[Callable[..., None], tuple[Any, ...]]]] = deque()
_loop: Any = None


def begin() -> None:
    """A worker's loop goes round from now on. Without one nothing is put off."""
    global _loop  # noqa: PLW0603 - the one place that writes it
    _loop = get_hub().loop


def do(function: Callable[..., None], *args: Any) -> None:
    """Call it then, in the order in which this was asked for. What it raises is logged, and disturbs nothing else."""
    _waiting.append((function, args))
    if _loop is None:
        catch_up()
    elif len(_waiting) == 1:
        _loop.run_callback(catch_up)


def catch_up() -> None:
    """Do now what is put off: nothing may be lost at the end."""
    while _waiting:
        function, args = _waiting.popleft()
        try:
            function(*args)
        except Exception as error:  # noqa: BLE001 - whoever asked for it has gone
            _log.error("unexpected_error", error_class=type(error).__name__, exc_info=error)
