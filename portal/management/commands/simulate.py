"""`manage.py simulate`: replaces itself by `python -m gateway.simulator`, which starts faster without Django."""

import os
import sys

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Run a vLLM stand-in with the real wire format. `manage.py simulate --help` lists its options and knobs."

    def run_from_argv(self, argv: list[str]) -> None:
        os.chdir(settings.BASE_DIR)
        os.execv(sys.executable, [sys.executable, "-m", "gateway.simulator", *argv[2:]])  # noqa: S606 - it becomes that process

    def handle(self, *args: object, **options: object) -> None:
        raise CommandError("simulate takes the place of its process: run it from a command line")
