"""What import-linter cannot say: the hot path names no part of Django that could make a query."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
HOT = sorted(
    path
    for pattern in (
        "gateway/api/*.py",
        "gateway/routing/*.py",
        "gateway/server/*.py",
        "gateway/upstream/*.py",
        "gateway/*.py",
        "usage/*.py",
    )
    for path in PROJECT.glob(pattern)
    if path.name not in {"models.py", "tasks.py", "apps.py"}
)
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
