"""`manage.py doctor`: looks at everything an installation stands on; exit code 1 when something is wrong."""

import json
import sys
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from portal import checkup
from portal.stores import Finding


class Command(BaseCommand):
    help = "Check this installation: each line is good, or says what to do."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON list")

    def handle(self, *args: Any, **options: Any) -> None:
        findings = []
        for finding in checkup.all_findings():
            findings.append(finding)
            if not options["json"]:
                self.stdout.write(_line(finding))
        if options["json"]:
            self.stdout.write(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
        if not all(finding.is_good for finding in findings):
            sys.exit(1)


def _line(finding: Finding) -> str:
    if finding.is_good:
        return f" ✔ {finding.name}: {finding.detail}"
    return f" ✖ {finding.name}: {finding.detail}\n     → {finding.remedy}"
