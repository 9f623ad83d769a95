"""`python -m tests.gateway.routing.worker REDIS_URL WORKER BACKEND URL`: a worker, as gevent runs it, to be killed."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

from tests.gateway.routing.workers import Worker, platform  # noqa: E402

redis_url, worker, backend, url = sys.argv[1:]
Worker(platform({backend: url}), redis_url, worker).thread.join()
