"""The embedded stores: started as children in any folder, ended in order, and never left behind."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from portal import embedded
from portal.settings.env import run_folder
from tests.processes import PROJECT, wait_until

pytestmark = pytest.mark.xdist_group("stores")


@pytest.fixture
def state() -> Iterator[Path]:
    """A state folder at a path with a space, in a place every user can reach."""
    with tempfile.TemporaryDirectory(prefix="sekisho ") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "va r"


def test_postgres_keeps_its_data_over_a_restart(state: Path) -> None:
    store = embedded.start_postgres(state)
    with psycopg.connect(store.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    store.stop()
    store = embedded.start_postgres(state)
    with psycopg.connect(store.url) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
    store.stop()
    assert store.process.returncode == 0


def test_valkey_keeps_its_data_over_a_restart_and_a_kill(state: Path) -> None:
    store = embedded.start_valkey(state)
    redis.Redis.from_url(store.url).set("kept", "yes")
    store.stop()
    store = embedded.start_valkey(state)
    client = redis.Redis.from_url(store.url)
    client.set("also", "yes")
    wait_until(lambda: client.info("persistence")["aof_pending_bio_fsync"] == 0, "the append-only file was not written")
    store.process.kill()
    store.process.wait()
    store = embedded.start_valkey(state)
    assert client.mget("kept", "also") == [b"yes", b"yes"]
    store.stop()


def test_sockets_are_closed_to_other_users_and_leave_nothing(state: Path) -> None:
    store = embedded.start_valkey(state)
    assert run_folder(state).stat().st_mode & 0o077 == 0
    store.stop()
    assert not run_folder(state).exists()


def test_a_socket_folder_open_to_others_is_refused(state: Path) -> None:
    state.mkdir()
    run_folder(state).mkdir(mode=0o700)
    run_folder(state).chmod(0o777)
    with pytest.raises(embedded.StoreFailed, match="remove it"):
        embedded.start_valkey(state)
    run_folder(state).rmdir()


def test_a_second_start_on_the_same_folder_is_refused(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "STOP_S", 0.2)
    store = embedded.start_valkey(state)
    with pytest.raises(embedded.StoreFailed, match="already running"):
        embedded.start_valkey(state)
    store.stop()


def test_a_first_start_that_was_cut_off_is_made_good(state: Path) -> None:
    embedded.start_postgres(state).stop()
    ((state / "postgres").resolve() / "PG_VERSION").unlink()
    store = embedded.start_postgres(state)
    with psycopg.connect(store.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    store.stop()


def test_a_store_that_cannot_start_says_why(state: Path) -> None:
    embedded.start_postgres(state).stop()
    ((state / "postgres").resolve() / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(embedded.StoreFailed, match=r"no_such_setting|configuration file"):
        embedded.start_postgres(state)


def test_stores_end_when_their_starter_is_killed(state: Path) -> None:
    script = (
        "import sys, pathlib; from portal import embedded; state = pathlib.Path(sys.argv[1]);"
        "stores = [embedded.start_postgres(state), embedded.start_valkey(state)];"
        "print(*(s.process.pid for s in stores), flush=True); input()"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", script, str(state)], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    pids = [int(pid) for pid in starter.stdout.readline().split()]
    assert len(pids) == 2
    starter.send_signal(signal.SIGKILL)
    starter.communicate()
    wait_until(lambda: not any(_is_alive(pid) for pid in pids), "a store outlived its starter", seconds=30)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_stores_start_as_a_plain_user(state: Path) -> None:
    nobody = 65534
    checkout_is_open = (
        subprocess.run(
            [sys.executable, "-c", "import portal.embedded"],
            cwd=PROJECT,
            user=nobody,
            group=nobody,
            capture_output=True,
            check=False,
        )
        if _reaches(Path(sys.executable), nobody)
        else None
    )
    if checkout_is_open is None or checkout_is_open.returncode != 0:
        pytest.skip("this Python or checkout is closed to other users")
    state.mkdir()
    os.chown(state, nobody, nobody)
    script = (
        "import sys, pathlib; from portal import embedded; state = pathlib.Path(sys.argv[1]);"
        "[s.stop() for s in (embedded.start_postgres(state), embedded.start_valkey(state))]; print('served')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(state)],
        cwd=PROJECT,
        user=nobody,
        group=nobody,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HOME": "/nonexistent"},
    )
    assert done.stdout.strip() == "served", done.stderr


def _reaches(path: Path, user: int) -> bool:
    return (
        subprocess.run(["test", "-x", str(path.resolve())], user=user, group=user, extra_groups=[], check=False).returncode == 0
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
