"""The gateway's gunicorn configuration as it ships, and beside it how often each function is called, and what is left to the
collector of garbage: told to a file.

SIGUSR2 begins a count, the next one ends it. What is counted is true to one; the time that it takes is not the gateway's.
"""

import gc
import json
import os
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

_shipped = runpy.run_path(str(Path(__file__).parents[2] / "deploy/gunicorn/gateway.py"))
globals().update({name: value for name, value in _shipped.items() if not name.startswith("__")})

_CHECKOUT = str(Path(__file__).parents[2]) + "/"
_python: Counter[Any] = Counter()
_c: Counter[Any] = Counter()


def post_worker_init(worker: Any) -> None:
    import gevent

    _shipped["post_worker_init"](worker)
    # By gevent and not by signal: the count begins and ends between two calls of functions, not inside of one.
    gevent.signal_handler(signal.SIGUSR2, _toggle)


def _toggle() -> None:
    import greenlet

    if greenlet.gettrace() is None:
        _python.clear()
        _c.clear()
        gc.collect()
        gc.disable()
        greenlet.settrace(_switched)  # each greenlet has a profiler of its own
        return
    greenlet.settrace(None)
    sys.setprofile(None)
    told = {
        "python": {_place(code): n for code, n in _python.items()},
        "c": {_name(f): n for f, n in _c.items()},
        "garbage": _garbage(),
    }
    path = Path(os.environ["SEKISHO_BENCH_FUNCTIONS"])
    path.with_suffix(".part").write_text(json.dumps(told))
    path.with_suffix(".part").rename(path)


def _garbage() -> dict[str, int]:
    """The types of what hangs together in circles, and how many of each."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    found = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage)
    gc.garbage.clear()
    gc.enable()
    return found


def _switched(_event: str, _greenlets: Any) -> None:
    import greenlet

    sys.setprofile(_count if greenlet.gettrace() is not None else None)


def _count(frame: Any, event: str, function: Any) -> None:
    if event == "call":
        _python[frame.f_code] += 1
    elif event == "c_call":
        _c[function.__qualname__, frame.f_code] += 1


def _place(code: Any) -> str:
    return f"{code.co_filename.removeprefix(_CHECKOUT)}:{code.co_firstlineno} {code.co_qualname}"


def _name(called: tuple[str, Any]) -> str:
    return f"{called[0]} < {_place(called[1])}"
