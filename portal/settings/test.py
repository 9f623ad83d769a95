"""The tests' profile: the portal's, with made-up secrets and a fast password hasher. The stores are real."""

import os
import tempfile
from pathlib import Path

# A state folder a run, named before any process of the run reads its settings: runs side by side never meet.
os.environ.setdefault("SEKISHO_HOME", str(Path(tempfile.gettempdir()) / f"sekisho-test-{os.getpid()}"))
os.environ.setdefault("SEKISHO_SECRET_KEY", "test-secret-key-of-no-value-to-anyone-at-all-0123456789")
os.environ.setdefault("SEKISHO_KEY_PEPPERS", "t1:dGVzdC1wZXBwZXItb2Ytbm8tdmFsdWU,t0:b2xkLXRlc3QtcGVwcGVyLW9mLW5vLXZhbHVl")
os.environ.setdefault("SEKISHO_FIELD_KEYS", "t1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
os.environ.setdefault("SEKISHO_SALT_KEY", "test-salt-of-no-value")

from portal.settings.web import *  # noqa: F403 - the secrets above must stand before the base reads them
from portal.settings.web import CACHES, CELERY_BROKER_URL, DATABASES, REDIS_URL

# pytest-xdist: each worker process has its own PostgreSQL database (pytest-django) and its own Valkey database.
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw-1")[2:]) + 1
REDIS_URL = REDIS_URL.replace("?db=0", f"?db={_worker}")
CELERY_BROKER_URL = CELERY_BROKER_URL.replace("?virtual_host=0", f"?virtual_host={_worker}")
CACHES["default"]["LOCATION"] = REDIS_URL

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DATABASES["default"]["OPTIONS"].pop("pool")  # the test runner opens and drops databases: plain connections let go at once
