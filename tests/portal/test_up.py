"""`deploy/up` from a copy of the checkout at a path with a space: started, called, stopped, killed."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import requests

from portal.settings.env import embedded_database_url, embedded_redis_url
from tests.portal.installation import Checkout, Running, processes_of
from tests.processes import wait_until

pytestmark = pytest.mark.xdist_group("installation")
CONFIGURATION = """
backends:    [{name: gpu-1, url: "http://127.0.0.1:1"}]
deployments: [{name: tiny, served_model: tiny, backends: [{backend: gpu-1, weight: 1}]}]
tenants:
  - slug: acme
    name: Acme
    aliases: [{name: ours, deployment: tiny}]
    keys: [{name: ci, secret_env: CI_KEY, scopes: [chat, models]}]
"""
ANY_PORTS = ("--portal-port", "0", "--api-port", "0")


@pytest.fixture
def copy(installation: Running) -> Checkout:
    return installation.checkout


@pytest.fixture
def home(installation: Running, request: pytest.FixtureRequest) -> Path:
    return installation.home.with_name(f"ho me of {request.node.name}"[:60])


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def stream(running: Running, key: str) -> list[str]:
    body = {"model": "general", "messages": [{"role": "user", "content": "こんにちは"}], "stream": True}
    headers = {"Authorization": f"Bearer {key}"}
    answer = requests.post(f"{running.told['api']}/v1/chat/completions", json=body, headers=headers, stream=True, timeout=60)
    assert answer.status_code == 200, answer.text
    return [line.decode() for line in answer.iter_lines() if line]


def pid_of(running: Running, text: str) -> int:
    """The child of `up` whose command holds `text`."""
    for pid in running.pids():
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        if int(stat[1]) == running.process.pid and text in Path(f"/proc/{pid}/cmdline").read_text():
            return pid
    raise AssertionError(f"no child runs {text}")


def test_the_line_tells_all_that_a_script_needs(installation: Running) -> None:
    assert list(installation.told) == ["api", "portal", "admin_email", "admin_password", "demo_key"]
    assert all(installation.told.values())
    assert urlsplit(installation.told["api"]).hostname == "127.0.0.1"


def test_the_demo_key_streams_an_answer(installation: Running) -> None:
    lines = stream(installation, installation.told["demo_key"])
    assert len(lines) > 3
    assert lines[-1] == "data: [DONE]"


def test_the_operator_signs_in_with_the_told_password(installation: Running) -> None:
    with requests.Session() as browser:
        url = f"{installation.told['portal']}/sign-in/"
        browser.get(url, timeout=60)
        form = {
            "login": installation.told["admin_email"],
            "password": installation.told["admin_password"],
            "csrfmiddlewaretoken": browser.cookies["csrftoken"],
        }
        answer = browser.post(url, data=form, timeout=60, allow_redirects=False)
        assert answer.status_code == 302
        assert "Demo 株式会社" in browser.get(f"{installation.told['portal']}/t/demo/", timeout=60).text


def test_secrets_are_closed_to_others_and_never_logged(installation: Running) -> None:
    file = installation.home / "secrets.env"
    assert file.stat().st_mode & 0o077 == 0
    told = "".join(installation.log)
    for line in file.read_text().splitlines():
        if not line.startswith("#"):
            assert line.partition("=")[2] not in told
    assert installation.told["admin_password"] not in told
    assert installation.told["demo_key"] not in told


def test_a_second_up_on_the_same_folder_is_refused(installation: Running, copy: Checkout) -> None:
    done = copy.try_up("--home", str(installation.home), *ANY_PORTS)
    assert done.returncode == 1
    assert "another `up` is running" in done.stderr
    assert stream(installation, installation.told["demo_key"])


def test_taken_ports_give_way_a_file_is_applied_and_sigterm_leaves_nobody(
    installation: Running, copy: Checkout, home: Path, busy_port: int, tmp_path: Path
) -> None:
    api_port = str(urlsplit(installation.told["api"]).port)
    file = tmp_path / "configuration.yaml"
    file.write_text(CONFIGURATION)
    options = ("--json", "--no-demo", "--portal-port", str(busy_port), "--api-port", api_port, "--apply", str(file))
    with copy.up(home, *options, CI_KEY="sk-of-another-house-0123456789") as running:
        assert urlsplit(running.told["portal"]).port not in (busy_port, None)
        assert running.told["api"] != installation.told["api"]
        assert running.told["demo_key"] is None
        assert requests.get(f"{running.told['portal']}/sign-in/", timeout=60).status_code == 200
        headers = {"Authorization": "Bearer sk-of-another-house-0123456789"}
        models = requests.get(f"{running.told['api']}/v1/models", headers=headers, timeout=60)
        assert [model["id"] for model in models.json()["data"]] == ["ours"]
        log = "".join(running.log)
        assert f"port {busy_port} is taken: the portal is on {urlsplit(running.told['portal']).port}." in log
        assert f"port {api_port} is taken: the API is on" in log
        assert running.stop() == 0
        wait_until(lambda: not running.pids(), "somebody was left behind", seconds=5)
        assert running.process.stdout is not None
        assert running.process.stdout.read() == ""  # one line, and nothing else


def test_what_random_made_is_told_once_and_lasts(copy: Checkout, home: Path) -> None:
    with copy.up(home, *ANY_PORTS, LANG="ja_JP.UTF-8") as first:
        assert "admin@localhost / " in first.card
        assert "表示は今回のみ" in first.card
        assert "curl http://127.0.0.1:" in first.card
        key = next(word for word in first.card.split() if word.startswith("sk-sekisho-"))
        assert first.stop(signal.SIGINT) == 0
        wait_until(lambda: not first.pids(), "somebody was left behind", seconds=5)

    with copy.up(home, *ANY_PORTS, "--json") as second:
        assert second.told["admin_password"] is None
        assert stream(second, key)
        assert stream(second, second.told["demo_key"])
        os.kill(pid_of(second, "deploy/gunicorn/gateway.py"), signal.SIGKILL)
        assert second.process.wait(90) == 1
        assert "gateway was killed by SIGKILL. Its last lines:" in "".join(second.log)

    with copy.up(home, *ANY_PORTS) as third:
        assert "sk-sekisho-" not in third.card
        assert "admin@localhost / " not in third.card
        assert "manage.py changepassword" in third.card
        assert third.stop(signal.SIGKILL) == -signal.SIGKILL
        wait_until(lambda: not third.pids(), lambda: f"outlived up: {third.pids()}", seconds=60)


def test_stores_of_others_are_used_and_none_is_started(installation: Running, copy: Checkout, home: Path) -> None:
    theirs = embedded_database_url(installation.home)
    with psycopg.connect(theirs, autocommit=True) as connection:
        connection.execute("CREATE DATABASE other")
    urls = {
        "DATABASE_URL": theirs.replace("@/sekisho", "@/other"),
        "REDIS_URL": embedded_redis_url(installation.home).replace("db=0", "db=9"),
    }
    with copy.up(home, *ANY_PORTS, "--no-demo", "--json", **urls) as running:
        assert requests.get(f"{running.told['api']}/readyz", timeout=60).status_code == 200
        assert not (home / "postgres").exists()
        assert not (home / "valkey").exists()
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("name", "url", "store"),
    [
        ("DATABASE_URL", "postgresql://sekisho:hunter2hunter2@127.0.0.1:1/sekisho", "PostgreSQL"),
        ("REDIS_URL", "redis://:hunter2hunter2@127.0.0.1:1/0", "Redis"),
    ],
)
def test_a_store_that_does_not_answer_is_one_clear_line(copy: Checkout, home: Path, name: str, url: str, store: str) -> None:
    done = copy.try_up("--home", str(home), *ANY_PORTS, **{name: url})
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{store}: does not answer" in line
    assert f"{name} right?" in line
    assert "hunter2" not in line


def test_a_file_that_cannot_be_applied_ends_up_with_its_reason(copy: Checkout, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "configuration.yaml"
    file.write_text("backends: [{name: gpu-1, url: 'no url'}]\n")
    done = copy.try_up("--home", str(home), *ANY_PORTS, "--no-demo", "--apply", str(file))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "configuration.yaml is not applied" in done.stderr
    assert "Traceback" not in done.stderr
    assert processes_of(home) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--home", "/dev/null/here"), "choose another with --home"),
        (("--host", "203.0.113.213"), "no address of this machine"),
        (("--api-port", "65536"), "give a number from 0 to 65535"),
        (("--gateway-workers", "0"), "give one from 1 to 256"),
        (("--no-such-option",), "unrecognized arguments"),
    ],
)
def test_what_cannot_be_is_one_clear_line(copy: Checkout, home: Path, options: tuple[str, ...], words: str) -> None:
    done = copy.try_up("--home", str(home), *options)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_python_up_says_what_to_install(copy: Checkout, tmp_path: Path) -> None:
    for tool in ("bash", "dirname", "cmp"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    elsewhere = tmp_path / "deploy"
    shutil.copytree(copy.folder / "deploy", elsewhere)
    done = subprocess.run(
        [str(elsewhere / "up")], capture_output=True, text=True, env={"PATH": str(tmp_path)}, check=False, timeout=60
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "Python 3.11 or later was not found. Install it" in line
