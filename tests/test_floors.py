"""What import-linter cannot say: the hot path names no part of Django that could make a query."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
# What runs in the portal and the worker, and may ask the database.
WITH_DATABASE = {
    "apps.py", "models.py", "tasks.py", "backend_counts.py", "counting.py", "exports.py", "labels.py", "monthly.py",
    "recovery.py", "copying.py", "counters.py", "ledger.py", "months.py", "posting.py",
    "history.py", "reconcile.py", "reports.py", "retention.py", "rollups.py", "series.py", "traffic.py", "unposted.py",
}  # fmt: skip
FOLDERS = ("gateway/api", "gateway/policy", "gateway/routing", "gateway/server", "gateway/upstream", "gateway", "usage")
HOT = sorted(path for folder in FOLDERS for path in (PROJECT / folder).glob("*.py") if path.name not in WITH_DATABASE)
HOT.append(PROJECT / "gateway/reports.py")  # asks the portal, which asks the database
FORBIDDEN = ("django.db", "django.contrib", "django.apps", "accounts.models", "gateway.models", "celery")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_there_is_a_hot_path() -> None:
    assert len(HOT) > 25


@pytest.mark.parametrize("path", HOT, ids=lambda p: str(p.relative_to(PROJECT)))
def test_the_hot_path_names_nothing_that_makes_queries(path: Path) -> None:
    assert not [name for name in imported(path) if name.startswith(FORBIDDEN)]
