"""Lua scripts of lua/: loaded once a process, run by their digest in one round trip."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import redis
from redis.exceptions import NoScriptError

from usage.store import RedisError, StoreUnavailable
from usage.values import light_dataclass

_FOLDER: Final = Path(__file__).parent / "lua"


@dataclass(frozen=True, slots=True)
class Script:
    """One verb, with what the verbs share. By its first line Redis refuses the whole of it when full, never half."""

    text: str
    sha: str

    @classmethod
    def of(cls, verb: str, *, flags: str = "") -> "Script":
        counters, posting, own = ((_FOLDER / f"{name}.lua").read_text() for name in ("counters", "posting", verb))
        text = f"#!lua {flags}\n{counters}\nlocal function posting()\n{posting}\nend\n\n{own}"
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


@light_dataclass
class Run:
    """One run of a script: its KEYS and its ARGV."""

    keys: Sequence[str]
    args: Sequence[str | bytes | int]


class Asks(Protocol):
    """A redis.Redis, or a Line."""

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any: ...
    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any: ...


def run(client: Asks, script: Script, one: Run) -> Any:
    """What the script returns. Raises StoreUnavailable."""
    try:
        try:
            return client.evalsha(script.sha, len(one.keys), *one.keys, *one.args)
        except NoScriptError:  # a restart or SCRIPT FLUSH; eval keeps it for the next
            return client.eval(script.text, len(one.keys), *one.keys, *one.args)
    except RedisError as error:
        raise StoreUnavailable(str(error)) from error


def run_all(client: redis.Redis, script: Script, runs: Iterable[Run]) -> list[Any]:
    """Many runs in one round trip, each atomic by itself. Raises StoreUnavailable; some may have been done then.

    For scripts that may be run again: when Redis does not know the script, all of them are, each with its text.
    """
    many = list(runs)
    if not many:
        return []
    try:
        with client.pipeline(transaction=False) as pipe:
            try:
                for one in many:
                    pipe.evalsha(script.sha, len(one.keys), *one.keys, *one.args)
                return pipe.execute()
            except NoScriptError:
                for one in many:
                    pipe.eval(script.text, len(one.keys), *one.keys, *one.args)
                return pipe.execute()
    except RedisError as error:
        raise StoreUnavailable(str(error)) from error
