"""`manage.py doctor`: a sound installation is all good; what is wrong is named, with a remedy and exit code 1."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from django.test import override_settings

from gateway.models import Backend, Deployment, PoolMember
from portal import checkup, stores
from portal.home import make_secrets
from tests.portal.installation import Running
from tests.processes import free_port
from tests.simulator import Simulator, simulator
from usage.partitions import journal_key


@pytest.mark.xdist_group("installation")
def test_a_running_installation_is_all_good(installation: Running) -> None:
    done = installation.manage("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✖" not in done.stdout
    for name in (
        "PostgreSQL", "Valkey", "Tables", "Secrets", "Configuration", "Journal", "Backend demo", "Gateway", "Portal", "Worker",
    ):  # fmt: skip
        assert f"✔ {name}: " in done.stdout


@pytest.mark.xdist_group("installation")
def test_json_is_one_list_of_the_same(installation: Running) -> None:
    findings: list[dict[str, Any]] = json.loads(installation.manage("doctor", "--json").stdout)
    assert all(finding["is_good"] for finding in findings)
    assert all(set(finding) == {"name", "is_good", "detail", "remedy"} for finding in findings)


@pytest.mark.xdist_group("installation")
def test_an_installation_that_is_not_running_fails_with_remedies(installation: Running, tmp_path: Path) -> None:
    make_secrets(tmp_path, {})
    url = f"http://127.0.0.1:{free_port()}"
    done = installation.checkout.manage(tmp_path, "doctor", SEKISHO_GATEWAY_URL=url)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    bad = [number for number, line in enumerate(lines) if line.startswith(" ✖")]
    assert len(bad) >= 5
    assert all(lines[number + 1].startswith("     → ") for number in bad)
    assert "Traceback" not in done.stderr


@pytest.mark.xdist_group("installation")
def test_missing_secrets_are_one_clear_line(installation: Running, tmp_path: Path) -> None:
    done = installation.checkout.manage(tmp_path, "doctor")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "SEKISHO_SECRET_KEY is not set" in line
    assert "deploy/up" in line


def test_the_stores_of_the_tests_are_good(db: None) -> None:
    assert stores.database().is_good
    assert stores.redis().is_good
    assert checkup.migrations().is_good


@override_settings(REDIS_URL="redis://127.0.0.1:1/0")
def test_a_redis_that_is_out_is_bad() -> None:
    finding = stores.redis()
    assert not finding.is_good
    assert finding.remedy


@override_settings(FIELD_KEYS=(("k1", "too short"),))
def test_a_field_key_that_cannot_encrypt_is_bad() -> None:
    assert "k1" in checkup.secrets().detail
    assert not checkup.secrets().is_good


def test_secrets_that_others_can_read_are_bad(tmp_path: Path) -> None:
    make_secrets(tmp_path, {})
    with override_settings(SEKISHO_HOME=tmp_path):
        assert checkup.secrets().is_good
        (tmp_path / "secrets.env").chmod(0o644)
        assert "chmod 600" in checkup.secrets().remedy


def test_a_configuration_nobody_published_is_bad(valkey: object, db: None) -> None:
    assert not checkup.published().is_good


def test_calls_that_nobody_posts_are_bad_and_say_how_long_they_may_wait(valkey: redis.Redis) -> None:
    assert checkup.journal().is_good
    put_on_journal_ago(valkey, seconds=30)
    assert checkup.journal().is_good
    put_on_journal_ago(valkey, seconds=7200)
    finding = checkup.journal()
    assert not finding.is_good
    assert finding.detail.startswith("2 ended calls wait for the ledger, the oldest for 120 min; in ")
    assert "worker" in finding.remedy


def put_on_journal_ago(valkey: redis.Redis, *, seconds: int) -> None:
    valkey.xadd(journal_key(seconds % 16), {"event": b"x"}, id=f"{int((time.time() - seconds) * 1000)}-0")


def pool(url: str, served_model: str) -> None:
    backend = Backend.objects.create(name="gpu-1", url=url)
    deployment = Deployment.objects.create(name="tiny", served_model=served_model)
    PoolMember.objects.create(deployment=deployment, backend=backend)


def test_a_backend_that_serves_the_model_is_good(db: None, vllm: Simulator) -> None:
    pool(vllm.url, "tiny")
    (finding,) = checkup.backends()
    assert finding.is_good


def test_a_backend_without_the_model_is_bad_and_says_what_it_serves(db: None, vllm: Simulator) -> None:
    pool(vllm.url, "huge")
    (finding,) = checkup.backends()
    assert not finding.is_good
    assert "huge" in finding.detail
    assert "tiny" in finding.remedy


def test_a_backend_that_is_not_there_is_bad(db: None) -> None:
    pool(f"http://127.0.0.1:{free_port()}", "tiny")
    (finding,) = checkup.backends()
    assert "does not answer" in finding.detail


@pytest.fixture(scope="module")
def vllm() -> Any:
    with simulator() as running:
        yield running


def test_another_program_on_the_gateways_port_is_told_apart(vllm: Simulator) -> None:
    with override_settings(GATEWAY_PUBLIC_URL=vllm.url):
        (finding,) = checkup.servers()
    assert "another program" in finding.detail
