#!/usr/bin/env python
"""Django's command line for this project; the settings profile defaults to the portal's."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings.web")
    if sys.argv[1:2] == ["up"]:
        from portal import up

        sys.exit(up.main(sys.argv[2:]))  # before Django: settings refuse to load without the secrets that it makes

    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"sekisho: {error}")


if __name__ == "__main__":
    main()
