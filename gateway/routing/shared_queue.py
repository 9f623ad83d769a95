"""SharedQueue: FairQueue's verbs for all workers together, in Redis. One atomic script a verb (lua/), one round trip.

All its keys begin with sekisho:{slots}: and so are one slot of a Redis Cluster: a worker hears of all its grants on one list.
Every method raises StoreUnavailable when Redis is out.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

from gateway.routing.waiting import Answer, Granted, Pool, Refused, Ticket
from usage.scripts import Run, Script, run, run_all
from usage.store import RedisError, StoreUnavailable

_PREFIX: Final = "sekisho:{slots}:"
_ANSWERS_MAX: Final = 1000
_FOLDER: Final = Path(__file__).parent / "lua"

# First number of an answer.
_HELD: Final = 1
_REFUSED: Final = 2
_GONE: Final = -1


def _script(verb: str) -> Script:
    """By its first line Redis refuses the whole of it when full, never half."""
    text = "#!lua\n" + "\n".join((_FOLDER / f"{name}.lua").read_text() for name in ("queue", verb))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_TAKE: Final = _script("take")
_RELEASE: Final = _script("release")
_GIVE_UP: Final = _script("give_up")
_RENEW: Final = _script("renew")


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a worker has of one deployment. waiting: tickets. held: tickets with their members."""

    pool: Pool
    waiting: list[str]
    held: dict[str, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """What has become of those that waited. gone: Redis does not know them: they are to be asked for anew."""

    answers: list[Answer]
    gone: list[str]


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many calls of all workers hold a place of one deployment, and how many wait for one."""

    held: int
    waiting: int


class SharedQueue:
    """One a worker. worker: its own name, among all there are."""

    def __init__(self, client: redis.Redis, worker: str) -> None:
        self._client = client
        self._worker = worker

    def take(self, deployment: str, ticket: Ticket, pool: Pool, *, instead_of: str = "") -> list[Answer]:
        """As FairQueue.take, but others' answers go to their workers. []: it waits. Asking again changes nothing."""
        wanted = (ticket.id, self._worker, ticket.tenant_id, str(ticket.tokens), instead_of, *ticket.wishes)
        answer = _answer(ticket.id, run(self._client, _TAKE, _run(deployment, pool, wanted)))
        return [] if answer is None else [answer]

    def release(self, deployment: str, ids: Iterable[str], pool: Pool) -> None:
        """As FairQueue.release, of many."""
        run(self._client, _RELEASE, _run(deployment, pool, list(ids)))

    def give_up(self, deployment: str, id_: str) -> Answer:
        """As FairQueue.give_up."""
        answer = _answer(id_, run(self._client, _GIVE_UP, _run(deployment, Pool(None), [id_])))
        if answer is None:
            raise RuntimeError("a call that gave up waits")
        return answer

    def renew(self, of: Mapping[str, Renewal]) -> dict[str, Standing]:
        """Lease what this worker holds for another 30 s, and its tickets for another 5. One round trip for all deployments."""
        runs = []
        for name, one in of.items():
            own: list[str | int] = [len(one.waiting), *one.waiting]
            for id_, member in one.held.items():
                own += (id_, member)
            runs.append(_run(name, one.pool, own))
        standings = {}
        for (name, one), replies in zip(of.items(), run_all(self._client, _RENEW, runs), strict=True):
            told = dict(zip(one.waiting, replies, strict=True))
            answers = [answer for id_, reply in told.items() if (answer := _answer(id_, reply)) is not None]
            standings[name] = Standing(answers, [id_ for id_, reply in told.items() if reply[0] == _GONE])
        return standings

    def ping(self) -> None:
        try:
            self._client.ping()
        except RedisError as error:
            raise StoreUnavailable(str(error)) from error

    def answers(self, client: redis.Redis, *, wait_s: float) -> list[Answer]:
        """What has become of this worker's calls that waited; [] where nothing has for `wait_s`. client: one that may block."""
        try:
            first: Any = client.blpop([self._list], timeout=wait_s)
            if first is None:
                return []
            more: Any = client.lpop(self._list, _ANSWERS_MAX)
        except RedisError as error:
            raise StoreUnavailable(str(error)) from error
        return [_told(item.decode()) for item in (first[1], *(more or ()))]

    @property
    def _list(self) -> str:
        return f"{_PREFIX}answers:{self._worker}"


def crowds(client: redis.Redis, deployments: Sequence[str], *, now_s: float) -> dict[str, Crowd]:
    """For people to see, in one round trip: what is leased at `now_s`, by Redis' clock. Raises RedisError."""
    pipe = client.pipeline(transaction=False)
    for name in deployments:
        for leases in ("live", "due"):
            pipe.zcount(f"{_PREFIX}{name}:{leases}", f"({now_s * 1000:.0f}", "+inf")
    told = pipe.execute() if deployments else []
    return {name: Crowd(*counts) for name, *counts in zip(deployments, told[::2], told[1::2], strict=True)}


def _run(deployment: str, pool: Pool, own: Sequence[str | int]) -> Run:
    args: list[str | int] = [_number(pool.ceiling), pool.waiting_max, len(pool.members)]
    for name, ceiling in pool.members:
        args += (name, _number(ceiling))
    return Run([f"{_PREFIX}{deployment}:"], [*args, *own])


def _number(ceiling: int | None) -> int:
    return -1 if ceiling is None else ceiling


def _answer(id_: str, reply: Sequence[Any]) -> Answer | None:
    if reply[0] == _HELD:
        return Granted(id_, reply[1].decode())
    return Refused(id_, reply[1] / 1000) if reply[0] == _REFUSED else None


def _told(text: str) -> Answer:
    id_, kind, value = text.split("\n")
    return Granted(id_, value) if kind == "granted" else Refused(id_, int(value) / 1000)
