"""The portal as a WSGI application; served by deploy/gunicorn/portal.py."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings.web")
application = get_wsgi_application()
