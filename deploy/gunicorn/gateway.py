from gevent import monkey

monkey.patch_all()  # before anything else is imported: patched late, every request failed

# The gateway's server: `python -m gunicorn -c deploy/gunicorn/gateway.py`, from the checkout.
import gc  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from importlib import import_module  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from portal.settings import env  # noqa: E402

# Files in memory, where there are such: never on a slow disk, or a full one.
memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108 - what is made there is open to this user alone

# Read by prometheus_client when it is imported: one file a worker, summed by /metrics. Of a folder that is made here the prefix
# tells: a reload reads this anew, and finds it named already.
made_here = "sekisho-metrics-"
if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
    folder = tempfile.mkdtemp(prefix=made_here, dir=memory) if memory else str(env.home() / "metrics")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
metrics = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])

# REST framework loads PostgreSQL's fields, and psycopg with them, where they are to be found: 6 MB that no gateway uses.
sys.modules.setdefault("django.contrib.postgres", None)  # type: ignore[arg-type]  # None: as if it were not there

# Libraries are loaded once, before the fork: workers share their memory and start in a quarter of the time. Our own code
# is not (no preload): what holds connections or threads must be made in the worker.
for library in (
    *("django.core.wsgi", "rest_framework", "requests", "redis", "orjson", "structlog"),
    *("cryptography.fernet", "gunicorn_h1c", "prometheus_client", "uuid_utils.compat"),
):
    import_module(library)

wsgi_app = "gateway.wsgi:application"
# Both are as strict, and answer the same; the stock loop costs a call a fifth more.
is_fast = env.switch("SEKISHO_FAST_HTTP", True)
worker_class = "gateway.server.fast_worker.FastWorker" if is_fast else "gateway.server.worker.GatewayWorker"
raw_env = ["DJANGO_SETTINGS_MODULE=portal.settings.gateway"]
bind = env.text("SEKISHO_API_BIND", "127.0.0.1:8001")
workers = env.integer("SEKISHO_GATEWAY_WORKERS", 2, low=1, high=256)
worker_connections = 2000
backlog = 2048
worker_tmp_dir = str(memory) if memory else None  # the heartbeat's file

# Under gevent this is also the limit on reading a request's head: at 75 s, 1,200 half-sent heads were a total outage.
keepalive = 5
timeout = 60  # a stall of the whole loop, not of a request
# Calls may go on for the grace, are told then, and what they used is settled: only after that would gunicorn kill.
graceful_timeout = int(env.number("SEKISHO_GRACE_S", 1800, low=0, high=86400)) + 15
max_requests = 0  # a worker that recycles itself would cut streams

http_parser = "python"  # the C parser lets obs-fold and bare LF through
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 8190
forwarded_allow_ips = ""  # X-Forwarded-For is judged by SEKISHO_TRUSTED_PROXIES alone
control_socket_disable = True  # its default path is per user: a second gunicorn would take it over
accesslog = None  # the gateway writes one structured line a call itself
errorlog = "-"
loglevel = "info"
proc_name = "sekisho-gateway"


def on_starting(server: Any) -> None:
    """Counts of the last run would be added to this one's."""
    metrics.mkdir(parents=True, exist_ok=True)
    for file in metrics.glob("*.db"):
        file.unlink()


def on_exit(server: Any) -> None:
    if metrics.parent == memory and metrics.name.startswith(made_here):
        shutil.rmtree(metrics, ignore_errors=True)


def pre_fork(server: Any, worker: Any) -> None:
    """The collector of garbage writes to each object that it looks at, and each page it writes to is a worker's own from then
    on: what was loaded until now it leaves alone. A worker took 19 MB more without it (2026-11)."""
    gc.collect()
    gc.freeze()


def post_worker_init(worker: Any) -> None:
    from gateway import lifecycle

    lifecycle.start()


def worker_exit(server: Any, worker: Any) -> None:
    from gateway import lifecycle

    lifecycle.stop()


def child_exit(server: Any, worker: Any) -> None:
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)
