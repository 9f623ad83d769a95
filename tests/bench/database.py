"""A PostgreSQL of its own for a benchmark, durable as in production, with the tables made; gone when it is over."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import django


@contextmanager
def database() -> Iterator[None]:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings.test")
    django.setup()

    from django.core.management import call_command

    from portal import embedded

    home = Path(os.environ["SEKISHO_HOME"])
    store = embedded.start_postgres(home)
    try:
        call_command("migrate", verbosity=0)
        yield
    finally:
        store.stop()
        shutil.rmtree((home / "postgres").resolve(), ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)
