"""What the scripts are told of limits, and how their answers are read: each limit gets its own numbers, in its own place."""

from struct import pack

import pytest

from tests.usage.quota_calls import ACME, KEY, limit
from usage.layout import boundless, counted, layout_of
from usage.limits import NAMES, Bound, BoundLimit
from usage.partitions import subject_key

NOW_MS = 1_790_000_000_250
MIXED = Bound([
    limit("money_per_month", 50, subject="tenant", subject_id=ACME),
    limit("concurrent_requests", 7),
    limit("tokens_per_hour", 3000, subject="tenant", subject_id=ACME),
    limit("requests_per_minute", 700, mode="shadow"),
])  # fmt: skip


def counters(**of: tuple[int, int, int, int]) -> bytes:
    """A subject's string: reserved, used, at, last of some."""
    order = ("requests_per_minute", "tokens_per_hour", "tokens_per_day", "tokens_per_month", "money_per_month")
    return pack("<20q", *(number for name in order for number in of.get(name, (0, 0, 0, 0))))


def answer(*subjects: tuple[bytes, int], moments: tuple[int, ...] = ()) -> bytes:
    """Admitted, with what each subject has and how many slots of it are held."""
    told = b"".join(packed + pack("<q", slots) for packed, slots in subjects)
    return pack("<2q", 1, 0) + told + pack(f"<{len(moments)}q", *moments)


OF_TENANT = counters(money_per_month=(3, 4, 202609, NOW_MS + 9000), tokens_per_hour=(30, 40, 29833333, 29833330))
OF_KEY = counters(requests_per_minute=(0, 5, 1_790_000_000, 1_789_999_999))


def test_each_limit_gets_its_own_numbers_in_the_order_of_the_limits() -> None:
    came_to, states = layout_of(ACME, MIXED).read(answer((OF_TENANT, 8), (OF_KEY, 2)), MIXED, NOW_MS)
    assert came_to == 1
    assert [(state.bound, state.used, state.reserved) for state in states] == [
        (MIXED[0], 4, 3), (MIXED[1], 0, 2), (MIXED[2], 40, 30), (MIXED[3], 5, 0),
    ]  # fmt: skip


def test_a_period_resets_at_its_end_a_window_when_its_last_bucket_leaves_and_slots_at_once() -> None:
    _, states = layout_of(ACME, MIXED).read(answer((OF_TENANT, 0), (OF_KEY, 2)), MIXED, NOW_MS)
    in_an_hour_ms, in_a_minute_ms = (29833330 + 61) * 60_000 - NOW_MS, (1_789_999_999 + 61) * 1000 - NOW_MS
    assert [state.reset_s for state in states] == [9.0, 0.0, in_an_hour_ms / 1000, in_a_minute_ms / 1000]


def test_a_window_of_which_nothing_is_used_is_free_now() -> None:
    held = counters(tokens_per_hour=(30, 0, 29833333, 29833330))
    _, states = layout_of(ACME, MIXED).read(answer((held, 0), (OF_KEY, 0)), MIXED, NOW_MS)
    assert states[2].reset_s == 0


def test_moments_of_a_refused_call_are_told_by_subject_and_read_by_limit() -> None:
    told = answer((OF_TENANT, 0), (OF_KEY, 0), moments=(10, 20, 30, 40))
    assert layout_of(ACME, MIXED).moments_ms(told) == (10, 30, 20, 40)


@pytest.mark.parametrize("name", NAMES)
def test_a_single_limit_is_read_as_several_are(name: str) -> None:
    alone = Bound([limit(name, 10)])
    string = counters(**{name: (3, 4, 5, 6)}) if name != "concurrent_requests" else counters()
    _, states = layout_of(ACME, alone).read(answer((string, 3)), alone, NOW_MS)
    assert (states[0].used, states[0].reserved) == ((0, 3) if name == "concurrent_requests" else (4, 3))


def test_a_call_without_limits_has_an_answer_too() -> None:
    came_to, states = layout_of(ACME, ()).read(answer(), Bound(()), NOW_MS)
    assert (came_to, list(states)) == (1, [])


def test_a_call_is_held_by_its_subjects_slots_too_where_nothing_limits_them() -> None:
    tenant, key = subject_key(ACME, "tenant", ACME), subject_key(ACME, "key", KEY)
    assert layout_of(ACME, MIXED).holds == f"$hc {tenant}\nmc {key}\n".encode()


def test_a_shadow_limit_and_a_call_that_runs_already_have_no_maximum() -> None:
    layout = layout_of(ACME, MIXED)
    assert layout.codes == ("$h", "cm")
    assert layout.maxima == pack("<4d", 50, 3000, 7, float("inf"))
    assert boundless(layout) == pack("<4d", *[float("inf")] * 4)


def test_a_counter_that_was_never_written_is_none() -> None:
    assert counted(OF_TENANT) == {"money_per_month", "tokens_per_hour"}
    assert counted(counters()) == set()


def test_two_limits_of_one_name_on_one_subject_are_a_mistake() -> None:
    twice: list[BoundLimit] = [limit("tokens_per_hour", 700), limit("tokens_per_hour", 800)]
    with pytest.raises(ValueError, match="two limits tokens_per_hour"):
        layout_of(ACME, twice)
