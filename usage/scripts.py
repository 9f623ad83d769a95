"""Lua scripts of lua/: loaded once a process, run by their digest in one round trip."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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


@light_dataclass
class Run:
    """One run of a script: its KEYS and its ARGV."""

    keys: Sequence[str]
    args: Sequence[str | bytes | int]

    def flat(self) -> tuple[Any, ...]:
        """What follows a script in EVALSHA."""
        return len(self.keys), *self.keys, *self.args

    def packed(self, verb: str, script: str) -> bytes:
        """The whole command as the protocol has it."""
        command: bytes = hiredis.pack_command((verb, script, *self.flat()))
        return command


class Prepared:
    """A script, and what many of its runs have in common: in the protocol's form, as of a hundred parts that took 80 us a run.

    A run's own ARGV stand between `first` and `last`. They are `own` in number, which is asked for: of one more or less the
    server would take the next command for the rest.
    """

    __slots__ = ("_after", "_before", "_own_head", "first", "keys", "last", "script")

    def __init__(
        self,
        script: Script,
        keys: Sequence[str],
        *,
        first: Sequence[str | int] = (),
        own: int,
        last: Sequence[str | bytes | int] = (),
    ) -> None:
        self.script = script
        self.keys = keys
        self.first = first
        self.last = last
        head = ("EVALSHA", script.sha, len(keys), *keys, *first)
        self._before = b"*%d\r\n" % (len(head) + own + len(last)) + _parts(head)
        self._after = _parts(last)
        self._own_head = b"*%d\r\n" % own

    def with_own(self, own: Sequence[str | bytes | int]) -> Run:
        return Run(self.keys, (*self.first, *own, *self.last))

    def command(self, own: tuple[Any, ...]) -> bytes:
        """The whole of one run, as the protocol has it."""
        packed: bytes = hiredis.pack_command(own)
        if not packed.startswith(self._own_head):
            raise ValueError(f"{len(own)} arguments of a run's own, which is not what was prepared for")
        return self._before + packed[len(self._own_head) :] + self._after

    def run(self, client: redis.Redis, line: "Line | None", own: tuple[Any, ...]) -> Any:
        """What the script returns, asked over the line if there is one. Raises StoreUnavailable."""
        if line is None:
            return run(client, self.script, self.with_own(own))
        try:
            try:
                return line.ask(self.command(own))
            except NoScriptError:  # a restart or SCRIPT FLUSH; EVAL keeps it for the next
                return line.ask(self.with_own(own).packed("EVAL", self.script.text))
        except RedisError as error:
            raise StoreUnavailable(str(error)) from error


def _parts(parts: Sequence[Any]) -> bytes:
    """As parts of a command in RESP."""
    command: bytes = hiredis.pack_command(tuple(parts))
    return command.partition(b"\r\n")[2]


def run(client: redis.Redis, script: Script, one: Run) -> Any:
    """What the script returns. Raises StoreUnavailable."""
    try:
        try:
            return client.evalsha(script.sha, *one.flat())
        except NoScriptError:
            return client.eval(script.text, *one.flat())
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
                    pipe.evalsha(script.sha, *one.flat())
                return pipe.execute()
            except NoScriptError:
                for one in many:
                    pipe.eval(script.text, *one.flat())
                return pipe.execute()
    except RedisError as error:
        raise StoreUnavailable(str(error)) from error
