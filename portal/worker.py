"""`python -m portal.worker READY`: the celery worker with beat inside, for one machine. READY: a file made when it serves.

Larger installations run `celery -A portal.celery worker` and `beat` as processes of their own. This is the same worker
without celery's command line, whose import takes longer than Django's.
"""

import sys
import warnings
from pathlib import Path
from typing import Any, Final

from celery.exceptions import SecurityWarning
from celery.signals import beat_embedded_init, worker_ready

from portal.celery import app
from portal.embedded import die_with_parent

THREADS: Final = 4


def main(ready: Path) -> int:
    # Celery warns root of pickled tasks; ours are JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)

    die_with_worker = die_with_parent()

    def on_ready(**_: Any) -> None:
        ready.touch()

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
    sys.exit(main(Path(sys.argv[1])))
