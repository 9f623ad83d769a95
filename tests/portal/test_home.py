"""The state folder: secrets made once and kept, one `up` at a time, addresses of the one that runs."""

import os
import subprocess
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from portal import home


def read(state: Path) -> dict[str, str]:
    lines = (state / "secrets.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def test_secrets_are_made_once_and_kept(tmp_path: Path) -> None:
    home.make_secrets(tmp_path / "va r", {})
    first = read(tmp_path / "va r")
    assert set(first) == set(home.SECRETS)
    home.make_secrets(tmp_path / "va r", {})
    assert read(tmp_path / "va r") == first


def test_secrets_and_folder_are_closed_to_others(tmp_path: Path) -> None:
    home.make_secrets(tmp_path / "var", {})
    assert (tmp_path / "var").stat().st_mode & 0o077 == 0
    assert (tmp_path / "var" / "secrets.env").stat().st_mode & 0o077 == 0


def test_two_installations_share_no_secret(tmp_path: Path) -> None:
    home.make_secrets(tmp_path / "a", {})
    home.make_secrets(tmp_path / "b", {})
    assert not set(read(tmp_path / "a").values()) & set(read(tmp_path / "b").values())


def test_what_the_environment_holds_is_not_made(tmp_path: Path) -> None:
    home.make_secrets(tmp_path, {"SEKISHO_SECRET_KEY": "given"})
    assert set(read(tmp_path)) == set(home.SECRETS) - {"SEKISHO_SECRET_KEY"}


def test_a_missing_secret_is_added_to_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "secrets.env").write_text("SEKISHO_SALT_KEY=mine\n")
    home.make_secrets(tmp_path, {})
    assert read(tmp_path)["SEKISHO_SALT_KEY"] == "mine"
    assert set(read(tmp_path)) == set(home.SECRETS)


def test_the_field_key_can_encrypt(tmp_path: Path) -> None:
    home.make_secrets(tmp_path, {})
    key_id, _, key = read(tmp_path)["SEKISHO_FIELD_KEYS"].partition(":")
    assert key_id == "k1"
    assert Fernet(key).encrypt(b"text")


def test_a_folder_that_cannot_be_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(home.HomeUnusable, match="--home"):
        home.make_secrets(tmp_path / "file" / "var", {})


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with home.lock(tmp_path), pytest.raises(home.HomeUnusable, match="another `up`"):
        home.lock(tmp_path)
    home.lock(tmp_path).close()


def test_addresses_are_those_of_a_process_that_lives(tmp_path: Path) -> None:
    assert home.addresses(tmp_path) is None
    mine = home.Addresses("http://127.0.0.1:1", "http://127.0.0.1:2", os.getpid())
    home.record_addresses(tmp_path, mine)
    assert home.addresses(tmp_path) == mine
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    home.record_addresses(tmp_path, home.Addresses("http://127.0.0.1:1", "http://127.0.0.1:2", gone.pid))
    assert home.addresses(tmp_path) is None
    home.forget_addresses(tmp_path)
    assert home.addresses(tmp_path) is None
