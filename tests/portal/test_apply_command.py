"""`manage.py apply` and `export`, as a person or a pipeline uses them."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command

from accounts.keys import is_minted
from accounts.models import ApiKey, Tenant
from gateway.config.documents import MARKER
from gateway.models import Backend

pytestmark = pytest.mark.django_db(transaction=True)
FILE = """\
backends: [{name: gpu-1, url: "http://127.0.0.1:9001", api_key_env: VLLM_KEY}]
deployments: [{name: tiny, served_model: tiny, backends: [{backend: gpu-1, weight: 1}]}]
tenants:
  - slug: acme
    name: Acme
    aliases: [{name: general, deployment: tiny, max_output_tokens: 512}]
    keys: [{name: ci}]
"""
Run = Callable[..., str]


@pytest.fixture
def run(valkey: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Applies a text; the answer is what stands on stdout."""
    monkeypatch.setenv("VLLM_KEY", "backend-credential")

    def apply(text: str, *arguments: str) -> str:
        path = tmp_path / "sekisho.yaml"
        path.write_text(text)
        out = io.StringIO()
        call_command("apply", str(path), *arguments, stdout=out, stderr=io.StringIO())
        return out.getvalue()

    return apply


def answer(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    def say(_: str) -> str:
        if text is None:
            raise EOFError
        return text

    monkeypatch.setattr("builtins.input", say)


def test_diff_and_new_key_are_shown_once(run: Run) -> None:
    out = run(FILE)
    assert out.splitlines()[:-1] == [
        "+ backend gpu-1",
        "+ deployment tiny",
        "+ tenant acme",
        "+ alias acme/general",
        "+ key acme/ci (minted)",
    ]
    text = re.fullmatch(r"Key acme/ci, shown this once: (\S+)", out.splitlines()[-1])[1]
    assert is_minted(text)
    assert Backend.objects.get().credential == "backend-credential"
    assert run(FILE) == "No changes.\n"
    assert run(FILE.replace("512", "1024")) == "~ alias acme/general max_output_tokens 512 -> 1024\n"


def test_apply_publishes_without_a_worker(run: Run, valkey: redis.Redis) -> None:
    run(FILE)
    assert valkey.exists(MARKER)


def test_dry_run_changes_nothing(run: Run, valkey: redis.Redis) -> None:
    out = run(FILE, "--dry-run").splitlines()
    assert out[0] == "+ backend gpu-1"
    assert out[-1] == "Dry run: nothing was changed."
    assert "sk-sekisho" not in "".join(out)
    assert not Tenant.objects.exists()
    assert not valkey.keys("sekisho:config:*")


def test_json_is_one_object(run: Run) -> None:
    facts = json.loads(run(FILE, "--json"))
    assert facts["changes"][0] == "+ backend gpu-1"
    assert facts["dry_run"] is False
    [key] = facts["minted"]
    assert (key["tenant"], key["name"], is_minted(key["key"])) == ("acme", "ci", True)
    assert json.loads(run(FILE, "--json", "--dry-run")) == {"dry_run": True, "changes": [], "minted": []}


def test_every_problem_is_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_KEY")
    with pytest.raises(CommandError) as caught:
        run(FILE.replace("deployment: tiny", "deployment: tinyy"))
    assert str(caught.value).splitlines() == [
        f"{tmp_path / 'sekisho.yaml'} is not applied:",
        "backends[0].api_key_env: the environment variable VLLM_KEY is not set (line 1)",
        'tenants[0].aliases[0].deployment: no deployment named "tinyy" (line 6); known: tiny',
    ]
    assert not Tenant.objects.exists()
    with pytest.raises(CommandError, match="cannot be read: No such file"):
        call_command("apply", str(tmp_path / "nowhere.yaml"))


def test_prune_asks_first(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run(FILE)
    pruned = FILE.replace("[{name: ci}]", "[]")
    for refusal in ("", "n", None):
        answer(monkeypatch, refusal)
        with pytest.raises(CommandError, match="Nothing was changed"):
            run(pruned, "--prune")
    assert ApiKey.objects.get().revoked_at is None
    answer(monkeypatch, "y")
    assert run(pruned, "--prune") == "- key acme/ci (revoked)\n"
    answer(monkeypatch, None)
    assert run(pruned, "--prune") == "No changes.\n"  # nothing to ask about


def test_prune_without_asking(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run(FILE)
    answer(monkeypatch, None)
    assert run("tenants: []", "--prune", "--dry-run") == "- tenant acme\nDry run: nothing was changed.\n"
    assert run("tenants: []", "--prune", "--no-input") == "- tenant acme\n"
    assert not Tenant.objects.exists()


def test_export_is_applied_without_a_change(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(FILE)
    monkeypatch.delenv("VLLM_KEY")
    out = io.StringIO()
    call_command("export", stdout=out)
    assert run(out.getvalue()) == "No changes.\n"
    assert run(out.getvalue(), "--prune") == "No changes.\n"
    target = tmp_path / "export.yaml"
    call_command("export", "--out", str(target))
    assert target.read_text() == out.getvalue()
    with pytest.raises(CommandError, match="cannot be written"):
        call_command("export", "--out", str(tmp_path / "nowhere" / "export.yaml"))


def test_redis_that_is_out_does_not_undo_the_apply(run: Run, settings: Any) -> None:
    settings.REDIS_URL = "unix:///nowhere/valkey.sock"
    run(FILE)
    assert Tenant.objects.exists()
