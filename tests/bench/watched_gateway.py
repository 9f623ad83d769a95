"""The gateway's gunicorn configuration as it ships, and beside it how many greenlets each worker holds, told to a file."""

import gc
import os
import runpy
from pathlib import Path
from typing import Any

_shipped = runpy.run_path(str(Path(__file__).parents[2] / "deploy/gunicorn/gateway.py"))
globals().update({name: value for name, value in _shipped.items() if not name.startswith("__")})

TOLD_EVERY_S = 2.0


def post_worker_init(worker: Any) -> None:
    import gevent

    _shipped["post_worker_init"](worker)
    gevent.spawn(_tell, Path(os.environ["SEKISHO_BENCH_GREENLETS"]))


def _tell(path: Path) -> None:
    import gevent

    while True:
        gevent.sleep(TOLD_EVERY_S)
        living = sum(isinstance(one, gevent.Greenlet) and not one.dead for one in gc.get_objects())
        path.write_text(str(living))
