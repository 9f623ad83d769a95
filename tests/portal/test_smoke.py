"""`manage.py smoke`: all good against a sound installation, and not good against one that is not."""

import pytest

from portal import smoke
from tests.portal.installation import Running
from tests.processes import free_port

pytestmark = pytest.mark.xdist_group("installation")


def test_a_running_installation_passes_with_a_key_of_its_own(installation: Running) -> None:
    done = installation.manage("smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(smoke.CHECKS)} of {len(smoke.CHECKS)} good" in done.stdout
    assert "✖" not in done.stdout


def test_the_key_it_made_is_revoked_in_the_end(installation: Running) -> None:
    installation.manage("smoke")
    listing = installation.manage("keys", "list", "demo").stdout
    lines = [line for line in listing.splitlines() if "smoke-" in line]
    assert lines
    assert all("revoked" in line for line in lines)


def test_a_given_key_needs_no_database(installation: Running) -> None:
    results = list(smoke.run(installation.told["api"], installation.told["demo_key"]))
    assert [result for result in results if not result.is_good] == []


def test_a_bad_key_fails_with_exit_code_1(installation: Running) -> None:
    done = installation.manage("smoke", "--base-url", installation.told["api"], "--key", "sk-sekisho-nobody")
    assert done.returncode == 1
    assert "✖ models" in done.stdout
    assert "status 401, not 200" in done.stdout


def test_a_portal_is_no_gateway(installation: Running) -> None:
    results = {result.name: result for result in smoke.run(installation.told["portal"], installation.told["demo_key"])}
    assert not results["models"].is_good
    assert not results["stream"].is_good


def test_nobody_there_fails_every_check() -> None:
    results = list(smoke.run(f"http://127.0.0.1:{free_port()}", "sk-sekisho-nobody"))
    assert len(results) == len(smoke.CHECKS)
    assert not any(result.is_good for result in results)


def test_an_unknown_tenant_is_one_clear_line(installation: Running) -> None:
    done = installation.manage("smoke", "--tenant", "nobody")
    assert done.returncode == 1
    assert "There is no tenant nobody" in done.stderr
    assert "Traceback" not in done.stderr
