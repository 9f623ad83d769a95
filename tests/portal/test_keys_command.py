"""`manage.py keys`, as a person at a terminal or a script uses it."""

import json
import os
import stat
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command, execute_from_command_line
from django.utils import timezone

from accounts import issuing, keys
from accounts.issuing import Terms
from accounts.models import ApiKey, AuditEvent, Tenant
from gateway.config import policies
from gateway.models import Deployment, ModelAlias

pytestmark = pytest.mark.django_db
IMPORTED = "sk-lemon-0123456789abcdef"


def run(*words: object) -> tuple[str, str]:
    """(stdout, stderr) of `manage.py keys ...`."""
    out, err = StringIO(), StringIO()
    call_command("keys", *map(str, words), stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def made(tenant: Tenant, name: str) -> ApiKey:
    return issuing.issue(tenant, Terms(name=name), actor=None, actor_label="test")[0]


@pytest.fixture
def general(acme: Tenant) -> ModelAlias:
    deployment = Deployment.objects.create(name="tiny", served_model="tiny")
    return ModelAlias.objects.create(tenant=acme, name="general", deployment=deployment)


def test_create_prints_the_key_alone_on_stdout(acme: Tenant) -> None:
    out, err = run("create", "acme", "--name", "ci")
    text = out.removesuffix("\n")
    assert keys.is_minted(text)
    key = ApiKey.objects.get()
    assert (key.tenant, key.name, key.hint) == (acme, "ci", keys.hint(text))
    assert key.scopes == ["chat", "models"]
    assert key.hint in err
    assert text not in err
    assert AuditEvent.objects.get().actor_label == "command: keys create"


def test_create_takes_every_term(acme: Tenant, general: ModelAlias) -> None:
    words = ["create", "acme", "--name", "ci", "--scope", "chat", "--scope", "usage", "--alias", "general"]
    words += ["--network", "192.0.2.0/24", "--network", "2001:db8::/32", "--dialect", "detail", "--expires", "2999-01-31"]
    policies.put(policies.create(None, "calm", actor=None, actor_label="test"), [], created_by="test")
    words += ["--policy", "calm"]
    run(*words)
    key = ApiKey.objects.get()
    assert (key.scopes, key.aliases, key.networks) == (["chat", "usage"], ["general"], ["192.0.2.0/24", "2001:db8::/32"])
    assert (key.error_dialect, key.policies) == ("detail", ["calm"])
    tokyo = ZoneInfo("Asia/Tokyo")
    assert key.expires_at == datetime(2999, 1, 31, 23, 59, 59, 999999, tzinfo=tokyo)


@pytest.mark.parametrize(
    ("text", "duration"), [("90d", timedelta(days=90)), ("24h", timedelta(hours=24)), ("2w", timedelta(14))]
)
def test_expiry_can_be_a_duration_from_now(acme: Tenant, text: str, duration: timedelta) -> None:
    before = timezone.now()
    run("create", "acme", "--name", "ci", "--expires", text)
    end = ApiKey.objects.get().expires_at
    assert end is not None
    assert before + duration <= end <= timezone.now() + duration


def test_key_goes_to_a_file_of_its_owner_alone(acme: Tenant, tmp_path: Path) -> None:
    file = tmp_path / "key"
    before = os.umask(0)
    try:
        out, err = run("create", "acme", "--name", "ci", "--out", file)
    finally:
        os.umask(before)
    text = file.read_text().removesuffix("\n")
    assert keys.is_minted(text)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert text not in out + err


@pytest.mark.parametrize("place", ["there", "no/such/folder/key"])
def test_key_that_cannot_be_written_is_not_made(acme: Tenant, tmp_path: Path, place: str) -> None:
    (tmp_path / "there").write_text("precious")
    with pytest.raises(CommandError, match=place):
        run("create", "acme", "--name", "ci", "--out", tmp_path / place)
    assert (tmp_path / "there").read_text() == "precious"
    assert not ApiKey.objects.exists()
    assert not AuditEvent.objects.exists()


def test_json_holds_the_key_or_names_its_file(acme: Tenant, tmp_path: Path) -> None:
    printed = json.loads(run("create", "acme", "--name", "ci", "--json")[0])
    assert keys.is_minted(printed["key"])
    assert (printed["tenant"], printed["name"], printed["state"]) == ("acme", "ci", "active")
    filed = json.loads(run("create", "acme", "--name", "other", "--json", "--out", tmp_path / "key")[0])
    assert filed["out"] == str(tmp_path / "key")
    assert "key" not in filed


def test_unknown_tenant_is_told_with_those_there_are(acme: Tenant, globex: Tenant) -> None:
    with pytest.raises(CommandError, match=r"“acne”\. There are: acme, globex\."):
        run("create", "acne", "--name", "ci")


def test_unknown_tenant_of_an_empty_installation_is_told() -> None:
    with pytest.raises(CommandError, match="none yet"):
        run("list", "acme")


def test_alias_or_policy_of_a_stranger_is_unknown(acme: Tenant, globex: Tenant, general: ModelAlias) -> None:
    with pytest.raises(CommandError, match="globex has no alias general"):
        run("create", "globex", "--name", "ci", "--alias", "general")
    policies.put(policies.create(acme, "calm", actor=None, actor_label="test"), [], created_by="test")
    with pytest.raises(CommandError, match=r"globex has no policy calm\. It has: none yet"):
        run("create", "globex", "--name", "ci", "--policy", "calm")
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scope", "root"], "invalid choice: 'root'"),
        (["--network", "192.0.2.1/24"], "networks: .*192.0.2.1/24"),
        (["--expires", "soon"], "no duration"),
        (["--expires", "2020-01-31"], "in the past"),
        (["--dialect", "other"], "invalid choice"),
    ],
)
def test_wrong_option_is_one_clear_line(acme: Tenant, words: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message) as caught:
        run("create", "acme", "--name", "ci", *words)
    assert "\n" not in str(caught.value).strip()
    assert not ApiKey.objects.exists()


def test_list_shows_every_key_but_no_secret(acme: Tenant, globex: Tenant) -> None:
    text = run("create", "acme", "--name", "ci")[0].strip()
    strange = made(globex, "strange")
    everything = run("list")[0]
    assert [line.split()[1] for line in everything.splitlines()] == ["TENANT", "acme", "globex"]
    assert keys.hint(text) in everything
    assert text not in everything
    ours = run("list", "acme")[0]
    assert strange.hint not in ours
    listed = json.loads(run("list", "--json")[0])
    assert [(row["tenant"], row["name"], row["expires_at"]) for row in listed] == [
        ("acme", "ci", None),
        ("globex", "strange", None),
    ]
    assert not {"key", "digest"} & set(listed[0])


def test_rotate_prints_the_new_key_and_keeps_the_old_one_for_the_overlap(acme_key: tuple[ApiKey, str]) -> None:
    old, old_text = acme_key
    before = timezone.now()
    out, err = run("rotate", old.id, "--overlap", "2h")
    text = out.strip()
    assert keys.is_minted(text)
    assert text != old_text
    old.refresh_from_db()
    assert old.state == "retiring"
    assert old.expires_at is not None
    assert before + timedelta(hours=2) <= old.expires_at <= timezone.now() + timedelta(hours=2)
    assert f"{old.expires_at:%H:%MZ}" in err
    assert AuditEvent.objects.get(verb="key.rotated").actor_label == "command: keys rotate"


def test_key_is_found_by_id_start_of_text_hint_and_whole_text(acme: Tenant) -> None:
    for number, reference in enumerate(("id", "id start", "text start", "hint", "text", "imported")):
        key, text = issuing.issue(acme, Terms(name=f"k{number}"), actor=None, actor_label="test")
        if reference == "imported":
            key = issuing.import_key(acme, Terms(name="imported"), IMPORTED, actor=None, actor_label="test")
        named = {
            "id": key.id,
            "id start": str(key.id)[:30].upper(),
            "text start": text[:15],
            "hint": key.hint,
            "text": text,
            "imported": IMPORTED,
        }
        run("revoke", named[reference])
        key.refresh_from_db()
        assert key.state == "revoked"


def test_imported_key_is_found_under_the_pepper_it_was_imported_with(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    issuing.import_key(acme, Terms(name="old"), IMPORTED, actor=None, actor_label="test")
    monkeypatch.setattr(settings, "KEY_PEPPERS", (("t9", "a new pepper"), *settings.KEY_PEPPERS))
    run("revoke", IMPORTED)
    assert ApiKey.objects.get().state == "revoked"


def test_several_keys_are_revoked_or_none(acme: Tenant) -> None:
    one, two = made(acme, "one"), made(acme, "two")
    with pytest.raises(CommandError, match="No such key"):
        run("revoke", one.id, "00000000-0000")
    assert ApiKey.objects.usable().count() == 2
    run("revoke", one.id, two.id)
    assert not ApiKey.objects.usable().exists()
    assert "was revoked before" in run("revoke", one.id)[1]


def test_ambiguous_reference_names_the_candidates(acme: Tenant) -> None:
    one, two = made(acme, "one"), made(acme, "two")
    with pytest.raises(CommandError) as caught:
        run("revoke", str(one.id)[:4])  # of the time: the same for seven weeks
    assert str(one.id) in str(caught.value)
    assert str(two.id) in str(caught.value)
    assert ApiKey.objects.usable().count() == 2


@pytest.mark.parametrize("reference", ["", "0", "sk-sekisho-", "sk-sekisho-abc", "…wxyz", "%%%%", "____", "sk-sekisho-____"])
def test_reference_too_short_or_wild_finds_nothing(acme_key: tuple[ApiKey, str], reference: str) -> None:
    with pytest.raises(CommandError, match="keys list"):
        run("revoke", reference)
    assert acme_key[0] in ApiKey.objects.usable()


def test_unknown_key_text_is_not_said_back(acme_key: tuple[ApiKey, str]) -> None:
    for text in (keys.mint(), "unknown-from-elsewhere-0123456789"):
        with pytest.raises(CommandError) as caught:
            run("revoke", text)
        assert text[:16] not in str(caught.value)


@pytest.mark.django_db(transaction=True)
def test_script_gets_the_key_on_stdout(acme: Tenant, capsys: pytest.CaptureFixture[str]) -> None:
    execute_from_command_line(["manage.py", "keys", "create", "acme", "--name", "ci"])
    assert keys.is_minted(capsys.readouterr().out.removesuffix("\n"))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("words", [["nobody", "--name", "ci"], ["acme", "--name", "ci", "--scope", "root"], ["acme"]])
def test_script_gets_an_exit_code_and_no_traceback(acme: Tenant, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        execute_from_command_line(["manage.py", "keys", "create", *words])
    out, err = capsys.readouterr()
    assert caught.value.code in (1, 2)
    assert out == ""
    assert "error" in err.lower()
    assert "Traceback" not in err
