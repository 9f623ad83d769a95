"""The gateway as a WSGI application; served by deploy/gunicorn/gateway.py."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings.gateway")
application = get_wsgi_application()
