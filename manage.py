#!/usr/bin/env python
"""Django's command line for this project; the settings profile defaults to the portal's."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings.web")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    from portal import home

    try:
        if sys.argv[1:2] == ["up"]:
            home.prepare(sys.argv[2:])  # settings refuse to load without secrets, and `up` is what makes them
        execute_from_command_line(sys.argv)
    except (ImproperlyConfigured, home.HomeUnusable) as error:
        sys.exit(f"sekisho: {error}")


if __name__ == "__main__":
    main()
