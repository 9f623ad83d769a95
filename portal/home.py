"""The state folder of an installation run by `up`: made and given its secrets before any settings are read.

Django-free, because settings refuse to load without the secrets that are made here.
"""

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from portal.settings import env


class HomeUnusable(Exception):
    """The state folder cannot be used; the message says why and what to do."""


def _token() -> str:
    return secrets.token_urlsafe(48)


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


# What `up` makes where neither the environment nor secrets.env has it. `k1` names the first key of a ring.
SECRETS: Final[Mapping[str, Callable[[], str]]] = {
    "SEKISHO_SECRET_KEY": _token,
    "SEKISHO_KEY_PEPPERS": lambda: f"k1:{_token()}",
    "SEKISHO_FIELD_KEYS": lambda: f"k1:{_fernet_key()}",
    "SEKISHO_SALT_KEY": _token,
}


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running `up` serves, for `doctor` and `smoke` in another terminal. pid: of `up`."""

    api: str
    portal: str
    pid: int


def prepare(folder: str | None) -> Path:
    """Before settings load: make `folder` the state folder (None: the usual one) and see that it holds all secrets.

    Returns its path. Raises HomeUnusable.
    """
    if folder is not None:
        os.environ["SEKISHO_HOME"] = str(Path(folder).absolute())
    state = env.home()
    make_secrets(state, os.environ)
    env.read_secrets()
    return state


def make_secrets(state: Path, environment: Mapping[str, str]) -> None:
    """Add to `state/secrets.env` each secret that neither it nor `environment` holds. Raises HomeUnusable."""
    path = state / "secrets.env"
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        present = {line.partition("=")[0].strip() for line in lines}
        missing = [name for name in SECRETS if name not in present and not environment.get(name)]
        if not missing:
            return
        if not lines:
            lines = ["# Made by `up`. Losing it makes API keys and stored backend credentials useless: keep a copy."]
        lines += [f"{name}={SECRETS[name]()}" for name in missing]
        half = path.with_suffix(".new")
        half.touch(mode=0o600)
        half.write_text("\n".join(lines) + "\n")
        half.replace(path)
    except OSError as error:
        raise HomeUnusable(f"the folder {state} cannot be used ({error.strerror}): choose another with --home.") from error


def lock(state: Path) -> IO[str]:
    """Hold `state` for this process until it ends, however it ends. Raises HomeUnusable when another `up` holds it."""
    handle = (state / "up.lock").open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise HomeUnusable(f"another `up` is running on {state}: stop it, or choose another folder with --home.") from error
    return handle


def record_addresses(state: Path, addresses: Addresses) -> None:
    (state / "up.json").write_text(json.dumps(asdict(addresses)))


def forget_addresses(state: Path) -> None:
    (state / "up.json").unlink(missing_ok=True)


def addresses(state: Path) -> Addresses | None:
    """Where the `up` of `state` serves; None when none runs."""
    try:
        found = Addresses(**json.loads((state / "up.json").read_text()))
        os.kill(found.pid, 0)
    except (OSError, ValueError, TypeError):
        return None
    return found
