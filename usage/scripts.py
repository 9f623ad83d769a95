"""Lua scripts of lua/: loaded once a process, run by their digest in one round trip."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import hiredis
import redis
from redis.exceptions import NoScriptError

from usage.store import RedisError, StoreUnavailable
from usage.values import light_dataclass

if TYPE_CHECKING:  # it needs gevent's loop, which only the gateway's workers have
    from usage.line import Line

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


class Fixed(tuple[str | int, ...]):
    """Keys or arguments that many runs have in common, put into the protocol's form once: of a hundred that took 80 us."""

    @cached_property
    def packed(self) -> bytes:
        return packed(self)


NONE_FIXED: Final = Fixed(())


@light_dataclass
class Run:
    """One run of a script: its KEYS and its ARGV, in each those of this run first."""

    keys: Sequence[str]
    args: Sequence[str | bytes | int]
    fixed_keys: Fixed = NONE_FIXED
    fixed_args: Fixed = NONE_FIXED

    def flat(self) -> tuple[Any, ...]:
        """What follows a script in EVALSHA."""
        number = len(self.keys) + len(self.fixed_keys)
        return number, *self.keys, *self.fixed_keys, *self.args, *self.fixed_args

    def packed(self, verb: str, script: str) -> bytes:
        """The whole command as the protocol has it."""
        fixed_keys, fixed_args = self.fixed_keys, self.fixed_args
        number = len(self.keys) + len(fixed_keys)
        parts = 3 + number + len(self.args) + len(fixed_args)
        head, tail = packed((verb, script, number, *self.keys)), packed(self.args)
        return b"".join((b"*%d\r\n" % parts, head, fixed_keys.packed, tail, fixed_args.packed))


def packed(parts: Sequence[Any]) -> bytes:
    """As parts of a command in RESP."""
    command: bytes = hiredis.pack_command(tuple(parts))
    return command.partition(b"\r\n")[2]


def run(client: "redis.Redis | Line", script: Script, one: Run) -> Any:
    """What the script returns. Raises StoreUnavailable."""
    try:
        try:
            return _ask(client, "EVALSHA", script.sha, one)
        except NoScriptError:  # a restart or SCRIPT FLUSH; EVAL keeps it for the next
            return _ask(client, "EVAL", script.text, one)
    except RedisError as error:
        raise StoreUnavailable(str(error)) from error


def _ask(client: "redis.Redis | Line", verb: str, script: str, one: Run) -> Any:
    # Not isinstance: redis.Redis is a Protocol's child, and to look for it among these takes 20 us.
    if (ask := getattr(client, "ask", None)) is not None:
        return ask(one.packed(verb, script))
    return client.execute_command(verb, script, *one.flat())  # type: ignore[union-attr]


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
                    pipe.evalsha(script.sha, *one.flat())
                return pipe.execute()
            except NoScriptError:
                for one in many:
                    pipe.eval(script.text, *one.flat())
                return pipe.execute()
    except RedisError as error:
        raise StoreUnavailable(str(error)) from error
