from gevent import monkey

monkey.patch_all()  # before anything else is imported: patched late, every request failed

# The portal's server: `python -m gunicorn -c deploy/gunicorn/portal.py`, from the checkout.
from pathlib import Path  # noqa: E402

from portal.settings import env  # noqa: E402

wsgi_app = "portal.wsgi:application"
worker_class = "gevent"
raw_env = ["DJANGO_SETTINGS_MODULE=portal.settings.web"]
bind = env.text("SEKISHO_PORTAL_BIND", "127.0.0.1:8000")
workers = env.integer("SEKISHO_PORTAL_WORKERS", 1, low=1, high=64)
worker_connections = 1000
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - the heartbeat file: never on a slow disk

keepalive = 5  # under gevent also the limit on reading a request's head
timeout = 60
graceful_timeout = 30
max_requests = 10_000
max_requests_jitter = 1000

http_parser = "python"  # the C parser lets obs-fold and bare LF through
control_socket_disable = True  # its default path is per user: a second gunicorn would take it over
accesslog = None
errorlog = "-"
loglevel = "info"
proc_name = "sekisho-portal"
