"""Where a call goes: soonest answered, conversations together. In simulated time, and rule by rule."""

import random
from collections import Counter
from typing import Any

import pytest

from gateway.config.documents import Backend, PoolMember
from gateway.routing.board import View
from gateway.routing.choice import Candidate, Expectations, Facts, best_first
from gateway.routing.gauges import Load
from tests.gateway.routing.simulation import ANSWER_S, PROMPT_S, Run, least_loaded, ours, ours_without_affinity, soonest

SEATS, CLIENTS = 16, 100
CAPACITY = SEATS * (1 + 2 + 4) / (PROMPT_S + ANSWER_S)  # calls a second of backends of speed 1, 2 and 4
# Open: so many calls a second come whatever becomes of them. Closed: each client calls again after its answer.
LOADS: dict[str, dict[str, Any]] = {
    "half full": {"rate": 0.5 * CAPACITY},
    "nearly full": {"rate": 0.9 * CAPACITY},
    "100 clients, always full": {"pause_s": 0.01},
    "100 clients that pause": {"pause_s": 1.0},
    "100 clients, places for all": {"seats": 64},
}


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("load", list(LOADS))
@pytest.mark.parametrize("choose", [ours, ours_without_affinity])
def test_first_tokens_come_as_soon_as_an_omniscient_least_loaded_choice_has_them(load: str, workers: int, choose: Any) -> None:
    """Backends of 1, 2 and 4 times the speed, all of one weight; p95 over the same arrivals."""
    calls = 2500
    theirs = Run(least_loaded, clients=CLIENTS, calls=calls, **LOADS[load])
    run = Run(choose, clients=CLIENTS, calls=calls, workers=workers, **LOADS[load])
    assert run.first_token_s(0.95) <= 1.3 * theirs.first_token_s(0.95)


@pytest.mark.parametrize("load", ["half full", "100 clients that pause"])
def test_even_a_choice_that_knows_the_queues_is_not_much_better(load: str) -> None:
    theirs = Run(soonest, clients=CLIENTS, calls=2500, **LOADS[load])
    assert Run(ours, clients=CLIENTS, calls=2500, **LOADS[load]).first_token_s(0.95) <= 1.5 * theirs.first_token_s(0.95)


@pytest.mark.parametrize(("share", "workers"), [(0.3, 1), (0.3, 2), (0.3, 8), (0.6, 1), (0.6, 2)])
@pytest.mark.parametrize("beginnings", [10, 300])
def test_what_begins_alike_goes_to_one_backend_while_loads_allow(share: float, workers: int, beginnings: int) -> None:
    rate = share * 4 * SEATS * 2 / (PROMPT_S + ANSWER_S)
    load: dict[str, Any] = {"speeds": (2, 2, 2, 2), "clients": 300, "rate": rate, "calls": 3000, "workers": workers}
    run = Run(ours, beginnings=beginnings, **load)
    # Ten beginnings are not shared out evenly, and some of their backends fill up.
    assert run.same_backend() >= (0.9 if beginnings == 300 or share < 0.5 else 0.75)
    if beginnings == 300:
        assert min(run.shares()) > 0.15
    assert run.first_token_s(0.95) <= 1.3 * Run(least_loaded, **load).first_token_s(0.95)


def test_a_beginning_that_everybody_has_spreads_when_its_backend_is_full() -> None:
    rate = 0.8 * CAPACITY
    run = Run(ours, beginnings=1, rate=rate, calls=2500)
    assert run.first_token_s(0.95) <= 1.3 * Run(least_loaded, rate=rate, calls=2500).first_token_s(0.95)


def candidate(name: str, *, weight: int = 1, readiness: float = 1.0, in_flight: int = 0, load: Load | None = None) -> Candidate:
    member = PoolMember(Backend(name, f"http://{name}"), weight)
    return Candidate(member, View(name, "healthy", readiness, load, in_flight, None))


def chosen(expected: Expectations, *candidates: Candidate, calls: int = 1000, digest: bytes = b"") -> Counter[str]:
    dice = random.Random(1).random
    facts = Facts("acme", "r", 100, digest)
    return Counter(best_first(candidates, facts, expected=expected, now_s=0.0, dice=dice)[0].backend.name for _ in range(calls))


def learned(**first_token_s: float) -> Expectations:
    expected = Expectations()
    for name, seconds in first_token_s.items():
        for _ in range(20):
            expected.note_first_token(name, queued=0, first_token_s=seconds)
    return expected


def test_nothing_known_calls_are_shared_out_by_weight() -> None:
    counts = chosen(Expectations(), candidate("a"), candidate("b", weight=3))
    assert counts["b"] == pytest.approx(750, abs=40)


def test_the_faster_one_gets_the_calls_until_it_is_as_late_as_the_others() -> None:
    expected = learned(a=0.1, b=0.4)
    assert chosen(expected, candidate("a"), candidate("b"), calls=50) == {"a": 50}
    assert chosen(expected, candidate("a", in_flight=200), candidate("b"), calls=50) == {"b": 50}


def test_those_nearly_as_fast_share_the_calls() -> None:
    counts = chosen(learned(a=0.1, b=0.12), candidate("a"), candidate("b"))
    assert counts["b"] == pytest.approx(500, abs=50)


def test_a_queue_counts_for_what_waiting_in_it_has_cost() -> None:
    expected = learned(a=0.1, b=0.1)
    for name, each_s in (("a", 0.01), ("b", 0.2)):
        for queued in (5, 10, 20) * 30:
            expected.note_first_token(name, queued=queued, first_token_s=0.1 + queued * each_s)
    full = Load(16, 4, 0.5, 1.0)
    a, b = candidate("a", in_flight=30, load=full), candidate("b", in_flight=20, load=full)
    waits_s, _ = expected.expected_s([a, b], 0.0)
    assert waits_s == pytest.approx([0.1 * 1.5 + 15 * 0.01, 0.1 * 1.5 + 5 * 0.2], rel=0.1)
    assert chosen(expected, a, b, calls=50) == {"a": 50}


def test_what_others_send_there_is_seen_in_the_gauges() -> None:
    busy = candidate("a", load=Load(16, 100, 0.5, 1.0))
    assert chosen(Expectations(), busy, candidate("b"), calls=50) == {"b": 50}


def test_a_full_cache_counts_as_full() -> None:
    full = candidate("a", in_flight=4, load=Load(4, 0, 0.99, 1.0))
    assert chosen(Expectations(), full, candidate("b", in_flight=4), calls=50) == {"b": 50}


def test_gauges_that_grow_old_are_forgotten() -> None:
    expected = Expectations()
    full, free = Load(4, 3, 0.5, 1.0), Load(2, 0, 0.5, 100.0)
    assert expected.queued(candidate("a", in_flight=7, load=full).view, 0.0) > 0
    assert expected.queued(candidate("a", in_flight=7, load=free).view, 100.0) == 0


def test_one_that_has_just_returned_gets_no_call_that_others_can_take() -> None:
    assert chosen(Expectations(), candidate("a", readiness=0.1), candidate("b"), calls=50) == {"b": 50}


def played(expected: Expectations, calls: int, **first_token_s: float) -> Counter[str]:
    """Calls one after the other, each of which has its first token before the next one comes."""
    dice, counts = random.Random(1).random, Counter[str]()
    candidates = [candidate(name) for name in first_token_s]
    for _ in range(calls):
        best = best_first(candidates, Facts("acme", "r", 100), expected=expected, now_s=0.0, dice=dice)[0].backend.name
        counts[best] += 1
        expected.note_first_token(best, queued=0, first_token_s=first_token_s[best])
    return counts


def test_a_slow_backend_is_tried_now_and_then() -> None:
    counts = played(learned(a=0.1, b=0.5), 10_000, a=0.1, b=0.5)
    assert 10 <= counts["b"] <= 100


def test_and_believed_when_it_is_fast_again() -> None:
    expected = learned(a=0.1, b=0.5)
    played(expected, 50, a=0.1, b=0.5)
    played(expected, 2000, a=0.1, b=0.1)
    assert played(expected, 1000, a=0.1, b=0.1)["b"] > 300


def test_of_one_that_was_out_it_is_forgotten_how_slow_it_was() -> None:
    expected = learned(a=0.1, b=30.0)
    for readiness in (0.1, 0.5, 1.0):
        chosen(expected, candidate("a"), candidate("b", readiness=readiness), calls=1)
    assert chosen(expected, candidate("a"), candidate("b"))["b"] == pytest.approx(500, abs=50)


def test_one_call_proves_little() -> None:
    expected = learned(a=0.1)
    expected.note_first_token("b", queued=0, first_token_s=0.2)
    assert chosen(expected, candidate("a"), candidate("b"))["b"] > 300


def test_a_conversation_stays_where_it_is_though_another_is_a_little_faster() -> None:
    for number in range(20):
        digest = b"%d" % number
        (home,) = chosen(Expectations(), candidate("a"), candidate("b"), digest=digest)
        slower = learned(**{home: 0.15, ("a" if home == "b" else "b"): 0.1})
        assert chosen(slower, candidate("a"), candidate("b"), digest=digest, calls=50) == {home: 50}


def test_the_others_follow_soonest_first() -> None:
    expected = learned(a=0.1, b=0.9, c=0.4)
    order = best_first([candidate(name) for name in "bca"], Facts("t", "r", 1), expected=expected, now_s=0.0, dice=lambda: 0.5)
    assert [member.backend.name for member in order] == ["a", "c", "b"]
