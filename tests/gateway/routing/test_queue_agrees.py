"""The scripts against FairQueue: whatever happens in whatever order, both say the same, and no ceiling is passed."""

from typing import Any, ClassVar

import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from gateway.routing.shared_queue import Renewal, SharedQueue
from gateway.routing.waiting import Answer, FairQueue, Granted, Pool, Refused, Ticket

TENANTS = ("acme", "globex", "initech")
MEMBERS = ("gpu-1", "gpu-2", "gpu-3")
BASE = "sekisho:{slots}:tiny:"
LATER_MS = 31_000


def elapse(client: redis.Redis, *, of: str, id_: str) -> None:
    """To the lease of one place or ticket, half a minute passes."""
    client.zincrby(BASE + of, -LATER_MS, id_)


class Wait(RuleBasedStateMachine):
    """Three tenants, backends with and without ceilings; calls come, fail over, end, leave, give up, and their workers die."""

    client: ClassVar[redis.Redis]

    def __init__(self) -> None:
        super().__init__()
        self.client.flushdb()
        self.shared = SharedQueue(self.client, "worker")
        self.model = FairQueue(lambda: 0.0)
        self.number = 0
        self.asked: dict[str, Ticket] = {}
        self.held: dict[str, str] = {}
        self.waiting: set[str] = set()

    @initialize(
        ceiling=st.none() | st.integers(1, 6),
        ceilings=st.none() | st.tuples(*[st.none() | st.integers(1, 3) for _ in MEMBERS]),
        most=st.integers(1, 8),
    )
    def begin(self, ceiling: int | None, ceilings: tuple[int | None, ...] | None, most: int) -> None:
        self.ceiling, self.ceilings, self.most = ceiling, ceilings, most
        self.offered = MEMBERS
        self.lowered = False

    @property
    def pool(self) -> Pool:
        if self.ceilings is None:
            return Pool(self.ceiling, (), self.most)
        all_ = zip(MEMBERS, self.ceilings, strict=True)
        offered = tuple((name, most) for name, most in all_ if name in self.offered)
        return Pool(self.ceiling, offered, self.most)

    @rule(
        tenant=st.sampled_from(TENANTS),
        tokens=st.integers(1, 1000),
        wishes=st.lists(st.sampled_from(MEMBERS), unique=True, max_size=3),
        is_sent_twice=st.booleans(),
    )
    def ask(self, tenant: str, tokens: int, wishes: list[str], is_sent_twice: bool) -> None:
        self.number += 1
        self._take(Ticket(f"{self.number:04d}", tenant, tokens, tuple(wishes)), "", is_sent_twice)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), wishes=st.lists(st.sampled_from(MEMBERS), unique=True, max_size=3), is_sent_twice=st.booleans())
    def fail_over(self, data: st.DataObject, wishes: list[str], is_sent_twice: bool) -> None:
        """A backend failed: the call asks for another, and was served before."""
        failed = data.draw(st.sampled_from(sorted(self.held)))
        tenant = self.asked[failed].tenant_id
        self.number += 1
        del self.held[failed]
        self._take(Ticket(f"{self.number:04d}", tenant, 0, tuple(wishes)), failed, is_sent_twice)

    def _take(self, ticket: Ticket, instead_of: str, is_sent_twice: bool) -> None:
        self.asked[ticket.id] = ticket
        told = self.model.take(ticket, self.pool, instead_of=instead_of)
        for _ in range(1 + is_sent_twice):
            own = self.shared.take("tiny", ticket, self.pool, instead_of=instead_of)
            if any(isinstance(answer, Refused) for answer in own):
                break  # a refused call that asks again is a new one
        self.waiting.add(ticket.id)
        self._agree(told, own)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """It ends, or its client leaves; at times this is said twice, or of a call that is gone."""
        id_ = data.draw(st.sampled_from(sorted(self.asked)))
        told = self.model.release(id_, self.pool)
        self.shared.release("tiny", [id_], self.pool)
        self.held.pop(id_, None)
        self.waiting.discard(id_)
        self._agree(told)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.waiting)))
        assert isinstance(self.model.give_up(id_), Refused)
        assert isinstance(self.shared.give_up("tiny", id_), Refused)
        self.waiting.discard(id_)

    @precondition(lambda self: self.held or self.waiting)
    @rule(data=st.data())
    def its_worker_dies(self, data: st.DataObject) -> None:
        """Whoever asks next lets it go; for the model it is as if it had left."""
        id_ = data.draw(st.sampled_from(sorted({*self.held, *self.waiting})))
        elapse(self.client, of="live" if id_ in self.held else "due", id_=id_)
        self.held.pop(id_, None)
        self.waiting.discard(id_)
        told = self.model.release(id_, self.pool)
        self.shared.renew({"tiny": Renewal(self.pool, [], {})})
        self._agree(told)

    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        """Says of each that waits, or did, how it stands; and hands out what a raised ceiling has freed."""
        ids = data.draw(st.lists(st.sampled_from(sorted(self.asked)), unique=True)) if self.asked else []
        told = self.model.release("", self.pool)
        standing = self.shared.renew({"tiny": Renewal(self.pool, ids, self.held)})["tiny"]
        self._agree(told)
        assert standing.answers == [Granted(id_, self.held[id_]) for id_ in ids if id_ in self.held]
        assert standing.gone == [id_ for id_ in ids if id_ not in self.held and id_ not in self.waiting]

    @rule(ceiling=st.none() | st.integers(1, 6), offered=st.lists(st.sampled_from(MEMBERS), unique=True, min_size=1))
    def change(self, ceiling: int | None, offered: list[str]) -> None:
        """A backend is ejected, or returns; an operator sets another ceiling."""
        self.offered = tuple(name for name in MEMBERS if name in offered)
        if self.ceiling is not None and ceiling is not None:
            self.lowered = self.lowered or len(self.held) > ceiling
            self.ceiling = ceiling

    def _agree(self, told: list[Answer], own: list[Answer] | None = None) -> None:
        """The same calls were told the same, in the same order but for the caller's own, who hears at once."""
        heard = self.shared.answers(self.client, wait_s=0.001) if len(told) > len(own or ()) else []
        assert self.client.llen("sekisho:{slots}:answers:worker") == 0
        order = sorted(told, key=lambda answer: own is not None and answer.id in {one.id for one in own}, reverse=True)
        assert [_plain(answer) for answer in [*(own or []), *heard]] == [_plain(answer) for answer in order]
        for answer in told:
            self.waiting.discard(answer.id)
            if isinstance(answer, Granted):
                self.held[answer.id] = answer.member

    @invariant()
    def the_places_are_the_same(self) -> None:
        raw: dict[bytes, bytes] = self.client.hgetall(BASE + "where")
        assert {id_.decode(): member.decode() for id_, member in raw.items()} == self.held == self.model.held
        assert self.client.zcard(BASE + "live") == len(self.held)
        assert {id_.decode() for id_ in self.client.hkeys(BASE + "tickets")} == self.waiting
        assert self.client.zcard(BASE + "due") == len(self.waiting)

    @invariant()
    def no_ceiling_is_passed(self) -> None:
        if not hasattr(self, "ceiling"):
            return
        if self.ceiling is not None and not self.lowered:
            assert len(self.held) <= self.ceiling
        self.lowered = self.lowered and self.ceiling is not None and len(self.held) > self.ceiling
        for name, most in zip(MEMBERS, self.ceilings or (), strict=False):
            assert most is None or list(self.held.values()).count(name) <= most


def _plain(answer: Answer) -> Any:
    return answer if isinstance(answer, Granted) else answer.id


def test_the_scripts_and_the_model_agree(valkey: redis.Redis) -> None:
    Wait.client = valkey
    run_state_machine_as_test(
        Wait,
        settings=settings(
            max_examples=50, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
        ),
    )
