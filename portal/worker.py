"""`python -m portal.worker ORDER DESCRIPTOR`: prepares the installation, then is the celery worker with beat inside.

For one machine, and started by `up`; larger installations run `celery -A portal.celery worker` and `beat` as processes
of their own. This is the same worker without celery's command line, whose import takes longer than Django's.
"""

import json
import os
import sys
import warnings
from typing import Any, Final

import django

from portal.embedded import die_with_parent
from portal.processes import Order, Prepared

THREADS: Final = 4


def main(order: Order, descriptor: int) -> int:
    """descriptor: gets what was prepared, as JSON, once the worker serves. Returns the exit code."""
    django.setup()
    from portal.preparation import CannotPrepare, prepare

    try:
        prepared = prepare(order)
    except CannotPrepare as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return _work(prepared, descriptor)


def _work(prepared: Prepared, descriptor: int) -> int:
    from celery.exceptions import SecurityWarning
    from celery.signals import beat_embedded_init, worker_ready

    from portal.celery import app

    warnings.filterwarnings("ignore", category=SecurityWarning)  # it warns root of pickled tasks; ours are JSON
    die_with_worker = die_with_parent()

    def on_ready(**_: Any) -> None:
        os.write(descriptor, prepared.to_json())
        os.close(descriptor)

    def on_beat(**_: Any) -> None:
        die_with_worker()  # in the process of beat, which would beat on for ever where its worker was killed

    worker_ready.connect(on_ready, weak=False)
    beat_embedded_init.connect(on_beat, weak=False)
    # A pool of threads: the tasks wait for stores. Gossip and mingle would look for other workers, for a second.
    worker = app.Worker(
        pool="threads", concurrency=THREADS, beat=True, loglevel="WARNING", quiet=True, without_gossip=True, without_mingle=True
    )
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main(Order(**json.loads(sys.argv[1])), int(sys.argv[2])))
