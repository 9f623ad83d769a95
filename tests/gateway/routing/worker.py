"""`python -m tests.gateway.routing.worker REDIS_URL NAME URL`: a worker's health alone, as gevent runs it, to be killed."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

from gateway.routing.board import Board  # noqa: E402
from gateway.routing.exchange import Exchange  # noqa: E402
from gateway.routing.health import Health  # noqa: E402
from tests.gateway.routing.conftest import platform  # noqa: E402
from usage.store import connect  # noqa: E402

redis_url, name, url = sys.argv[1:]
configuration = platform({name: url})
Health(Board(), Exchange(connect(redis_url), "to-be-killed"), lambda: configuration).run()
