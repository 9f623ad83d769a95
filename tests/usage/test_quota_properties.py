"""The scripts against the plain model: whatever happens in whatever order, both say the same, and no limit is overrun."""

from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import orjson
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from tests.usage import quota_calls
from tests.usage.quota_model import Call, Model, Wait, cost_nano
from usage.limits import TOKEN_NAMES, BoundLimit, Limit
from usage.partitions import journal_key, partition
from usage.quota import Progress, Quota, Reservation
from usage.reservation import Refusal, skeleton

# Two tenants of one partition in different time zones, and one of another.
TENANTS = {
    "0198c0de-0000-7000-8000-000000000001": "Asia/Tokyo",
    "0198c0de-0000-7000-8000-000000000029": "America/New_York",
    "0198c0de-0000-7000-8000-000000000002": "UTC",
}
ALIASES = ("general", "org/chat:7b")
NUMBERS = sorted({partition(tenant) for tenant in TENANTS})
STARTS = (
    "2026-12-31T14:59:40.000+00:00",  # 20 s before the year ends in Tokyo
    "2026-03-08T04:59:30.500+00:00",  # before New York's day of 23 hours
    "2026-11-01T03:59:50.000+00:00",  # before its day of 25 hours, and the month's end
    "2026-06-15T12:00:59.999+00:00",
)


def limits_of(tenant: str, key: int, alias: str, maxima: dict[str, int]) -> tuple[BoundLimit, ...]:
    """Nine limits of every kind, on a key, an alias and the tenant; one of them in shadow."""

    def bound(subject: str, subject_id: str, name: str, factor: int = 1, **more: Any) -> BoundLimit:
        return BoundLimit(subject, subject_id, Limit(name, maxima[name] * factor, **more))

    return (
        bound("key", f"k{key}", "requests_per_minute"),
        bound("key", f"k{key}", "tokens_per_hour"),
        bound("key", f"k{key}", "concurrent_requests"),
        bound("alias", alias, "tokens_per_day", clamps=True),
        bound("alias", alias, "tokens_per_hour", mode="shadow"),
        bound("alias", alias, "requests_per_minute", 2),
        bound("tenant", tenant, "tokens_per_month", 2),
        bound("tenant", tenant, "money_per_month"),
        bound("tenant", tenant, "concurrent_requests", 2),
    )


class Gate(RuleBasedStateMachine):
    client: ClassVar[redis.Redis]

    def __init__(self) -> None:
        super().__init__()
        self.client.flushdb()
        self.quota: Quota = quota_calls.whole_quota(self.client)
        self.model = Model()
        self.number = 0
        self.held: dict[str, Reservation] = {}
        self.asked: dict[str, Call] = {}
        self.is_overdrawn = False  # a call that had been given up went on: only then may a limit be passed

    @initialize(
        start=st.sampled_from(STARTS),
        maxima=st.fixed_dictionaries(
            {
                "requests_per_minute": st.integers(1, 8),
                "tokens_per_hour": st.integers(100, 900),
                "concurrent_requests": st.integers(1, 5),
                "tokens_per_day": st.integers(100, 2000),
                "tokens_per_month": st.integers(100, 2000),
                "money_per_month": st.integers(300_000, 5_000_000),
            }
        ),
        of=st.one_of(st.none(), st.just(511), st.integers(1, 511)),
    )
    def begin(self, start: str, maxima: dict[str, int], of: int | None) -> None:
        """of: which of the nine limits there are, as bits; None: limits come and go."""
        self.now_ms = round(datetime.fromisoformat(start).timestamp() * 1000)
        self.maxima = maxima
        self.of = of

    @property
    def now_s(self) -> float:
        return self.now_ms / 1000

    # What happens

    @rule(
        by_ms=st.one_of(
            st.integers(1, 2_000),
            st.integers(2_000, 62_000),
            st.integers(62_000, 3_700_000),
            st.sampled_from([86_400_000, 31 * 86_400_000]),
        )
    )
    def time_passes(self, by_ms: int) -> None:
        self.now_ms += by_ms

    @rule(by_ms=st.integers(1, 5_000))
    def the_clock_steps_back(self, by_ms: int) -> None:
        self.now_ms -= by_ms

    @rule(
        tenant=st.sampled_from(list(TENANTS)),
        asking=st.lists(
            st.tuples(
                st.integers(0, 1), st.sampled_from(ALIASES), st.integers(1, 60), st.integers(1, 140), st.integers(0, 511)
            ),
            min_size=1,
            max_size=6,
        ),
        then=st.sampled_from(["nothing", "comes at the moment", "asks for what fits"]),
    )
    def calls_ask(self, tenant: str, asking: list[tuple[int, str, int, int, int]], then: str) -> None:
        for key, alias, prompt, output, of in asking:
            every = limits_of(tenant, key, alias, self.maxima)
            chosen = tuple(bound for i, bound in enumerate(every) if (of if self.of is None else self.of) & 1 << i)
            self.number += 1
            call = Call(str(UUID(int=self.number)), tenant, TENANTS[tenant], chosen, prompt, output)
            refusal = self.ask(call)
            if refusal is not None and then == "comes at the moment":
                self.come_at_the_moment(call, *refusal)
            elif refusal is not None and then == "asks for what fits":
                self.ask_for_what_fits(call, refusal[0].fits_tokens)

    def ask(self, call: Call) -> tuple[Refusal, list[Wait]] | None:
        """None when it was admitted, else why not, by the quota and by the model."""
        answer = self.quota.reserve(
            call.request_id,
            call.tenant_id,
            call.limits,
            prompt_tokens=call.prompt,
            output_tokens=call.output,
            cost_nano=cost_nano(call.prompt, call.output),
            time_zone=call.zone,
            now_s=self.now_s,
            meta=skeleton(self.event(call, (0, 0, 0, 0))),
        )
        is_admitted = self.model.reserve(call, self.now_ms)
        assert isinstance(answer, Reservation) == is_admitted
        expected = [self.model.state(call, bound, self.now_ms) for bound in call.limits]
        assert [(state.used, state.reserved) for state in answer.states] == expected
        if isinstance(answer, Reservation):
            self.held[call.request_id], self.asked[call.request_id] = answer, call
            return None
        in_the_way = [
            bound for bound in call.limits if bound.limit.is_enforced and not self.model.fits(call, bound, self.now_ms)
        ]
        assert [state.bound for state in answer.refusing] == in_the_way
        waits = [self.model.wait(call, bound, self.now_ms) for bound in in_the_way]
        moments = [wait.at_ms for wait in waits if wait.at_ms is not None]
        if len(moments) < len(waits):
            assert answer.retry_after_s is None
        else:
            assert answer.retry_after_s == (max(moments) - self.now_ms) / 1000
        return answer, waits

    def come_at_the_moment(self, call: Call, refusal: Refusal, waits: list[Wait]) -> None:
        """A millisecond before it the call is still refused; at it, it is admitted."""
        if refusal.retry_after_s is None:
            return
        moment = self.now_ms + round(refusal.retry_after_s * 1000)
        if all(wait.stays for wait in waits):  # it holds while the reservations of others stay
            while self.now_ms + 20_000 < moment and moment - self.now_ms < 3_700_000:
                self.now_ms += 20_000
                self.all_live_calls_go_on()
        last = next(wait for wait in waits if wait.at_ms == moment)
        may_come_sooner = last.stays and any(c.is_live and c.lease_ends_ms < moment for c in self.model.calls.values())
        if not may_come_sooner and moment - 1 > self.now_ms:
            self.now_ms = moment - 1
            assert self.ask(call) is not None
        self.now_ms = max(self.now_ms, moment)
        is_refused = self.ask(call) is not None
        assert not is_refused or not all(wait.is_exact for wait in waits)

    def ask_for_what_fits(self, call: Call, fits_tokens: int) -> None:
        """That much output is admitted, and a token more is not."""
        if fits_tokens == 0:
            return
        assert fits_tokens < call.output
        assert self.ask(replace(call, output=fits_tokens + 1)) is not None
        assert self.ask(replace(call, output=fits_tokens)) is None

    @precondition(lambda self: self.held)
    @rule(data=st.data(), part_of_prompt=st.integers(0, 100), part_of_output=st.integers(0, 100), again=st.booleans())
    def a_call_ends(self, data: st.DataObject, part_of_prompt: int, part_of_output: int, again: bool) -> None:
        """With no more than it had reserved. Also one that was reaped meanwhile, or had ended already."""
        call = self.asked[data.draw(st.sampled_from(list(self.asked)))]
        prompt, completion = call.prompt * part_of_prompt // 100, call.output * part_of_output // 100
        amounts = (prompt, prompt // 3, completion, cost_nano(prompt, completion))
        posted = self.model.posted.get(call.request_id)
        self.is_overdrawn |= posted is not None and not posted.is_settled
        is_held_by_us = data.draw(st.booleans()) or not call.is_live  # else only Redis knows what it holds
        for _ in range(1 + again):
            reservation = self.held[call.request_id] if is_held_by_us else None
            is_first = self.quota.settle(reservation, self.event(call, amounts), now_s=self.now_s)
            assert is_first == self.model.settle(call, amounts, self.now_ms)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), part=st.integers(0, 100), is_prompt_known=st.booleans())
    def a_call_goes_on(self, data: st.DataObject, part: int, is_prompt_known: bool) -> None:
        call = self.asked[data.draw(st.sampled_from(list(self.asked)))]
        prompt, completion = call.prompt // 2 if is_prompt_known else None, call.output * part // 100
        posted = self.model.posted.get(call.request_id)
        self.is_overdrawn |= posted is not None and not posted.is_settled
        self.quota.renew([Progress(self.held[call.request_id], completion, prompt)], now_s=self.now_s)
        self.model.renew(call, completion, prompt, self.now_ms)

    @rule()
    def all_live_calls_go_on(self) -> None:
        live = [call for call in self.asked.values() if call.is_live]
        self.quota.renew([Progress(self.held[c.request_id], c.completion) for c in live], now_s=self.now_s)
        for call in live:
            self.model.renew(call, call.completion, None, self.now_ms)

    @rule(number=st.sampled_from(NUMBERS), has_redis_lost_scripts=st.booleans())
    def the_reaper_comes(self, number: int, has_redis_lost_scripts: bool = False) -> None:
        if has_redis_lost_scripts:
            self.client.script_flush()
        self.quota.reap(number, now_s=self.now_s)
        self.model.reap({tenant for tenant in TENANTS if partition(tenant) == number}, self.now_ms)

    # What always holds

    @invariant()
    def the_counters_are_as_the_model_says_and_within_the_limits(self) -> None:
        if not hasattr(self, "maxima"):
            return
        for tenant, zone in TENANTS.items():
            for key, alias in enumerate(ALIASES):
                limits = limits_of(tenant, key, alias, self.maxima)
                anyone = Call("", tenant, zone, limits, 0, 0)
                for i, state in enumerate(self.quota.state(tenant, limits, time_zone=zone, now_s=self.now_s)):
                    found = (state.used, state.reserved)
                    assert found == self.model.state(anyone, state.bound, self.now_ms), state.bound
                    assert min(found) >= 0
                    # A call that was not limited in its slots takes one, but was not refused for want of it.
                    is_asked_of_all = state.bound.limit.name != "concurrent_requests" or (self.of or 0) & 1 << i
                    is_kept = state.bound.limit.is_enforced and is_asked_of_all
                    assert not is_kept or self.is_overdrawn or sum(found) <= state.bound.limit.max

    @invariant()
    def the_journal_has_every_call_once(self) -> None:
        found = []
        for number in NUMBERS:
            for _, fields in self.client.xrange(journal_key(number)):
                line = orjson.loads(fields[b"event"])
                amounts = [line[name] for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "cost_nano")]
                found.append((line["request_id"], line["part"], *amounts, line["outcome"] == "lost"))
        assert sorted(found) == sorted(self.model.journal)

    def teardown(self) -> None:
        """Give every lease time to end: then nothing is held, and what was counted is what was journaled."""
        if not hasattr(self, "maxima"):
            return
        self.now_ms = max([self.now_ms, *(call.lease_ends_ms for call in self.asked.values())])
        for number in NUMBERS:
            self.the_reaper_comes(number)
        self.the_journal_has_every_call_once()
        assert not [key for key in self.client.keys("*") if b":r:" in key or key.endswith((b":live", b":leases"))]
        journaled: dict[Any, int] = {}
        for request_id, _, prompt, _, completion, _, _ in self.model.journal:
            call = self.asked[request_id]
            for bound in call.limits:
                counter = (call.tenant_id, bound.subject, bound.subject_id), bound.limit.name
                journaled[counter] = journaled.get(counter, 0) + prompt + completion
        for counter, used in self.model.used.items():
            if counter[1] in TOKEN_NAMES:
                assert sum(used.amounts.values()) == journaled.get(counter, 0)

    def event(self, call: Call, amounts: tuple[int, int, int, int]) -> Any:
        prompt, cached, completion, cost = amounts
        return quota_calls.event(
            call.request_id,
            prompt,
            completion,
            cached_tokens=cached,
            cost_nano=cost,
            tenant_id=call.tenant_id,
            usage_source="backend" if prompt or completion else "none",
            created_s=self.now_s,
        )


def test_scripts_and_model_agree(valkey: redis.Redis) -> None:
    Gate.client = valkey
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Gate, settings=settings(max_examples=40, stateful_step_count=45, deadline=None, suppress_health_check=checks)
    )
