"""The gateway as a WSGI application; served by deploy/gunicorn/gateway.py."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings.gateway")
_django = get_wsgi_application()

# Only now that Django is set up may what uses its settings be loaded.
from gateway.api.direct import with_hot_path  # noqa: E402
from gateway.api.middleware import edge  # noqa: E402
from gateway.api.views import ChatCompletions  # noqa: E402

application = with_hot_path(_django, edge(ChatCompletions().dispatch))
