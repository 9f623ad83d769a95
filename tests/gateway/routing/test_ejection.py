"""How long a backend is out, and how it comes back."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.ejection import BACK_OFF_MAX_S, FORGOTTEN_S, READINESS_MIN, SLOW_START_S, By, Ejection, eject

NOW_S = 1_800_000_000.0


def once(previous: Ejection | None = None, *, by: By = By.CALLS, now_s: float = NOW_S) -> Ejection:
    return eject(previous, by=by, reason="cut", text="3 calls in a row failed", now_s=now_s)


def test_back_off_doubles_up_to_a_minute() -> None:
    ejection, back_offs = None, []
    for _ in range(9):
        ejection = once(ejection)
        back_offs.append(ejection.back_off_s)
    assert back_offs == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_step_is_kept_for_a_while_after_the_return_and_then_forgotten() -> None:
    ejection = once(once()).readmitted(NOW_S)
    assert once(ejection, now_s=NOW_S + FORGOTTEN_S - 1).step == 3
    assert once(ejection, now_s=NOW_S + FORGOTTEN_S).step == 1


def test_calls_may_try_it_after_the_back_off_and_probes_readmit_by_themselves() -> None:
    ejection = once()
    assert ejection.state(NOW_S + 0.99) == "ejected"
    assert ejection.state(NOW_S + 1) == "trial"
    assert once(by=By.PROBE).state(NOW_S + 3600) == "ejected"
    assert ejection.readmitted(NOW_S + 2).state(NOW_S + 2) == "healthy"


def test_slow_start_takes_ten_seconds() -> None:
    ejection = once()
    assert ejection.readiness(NOW_S + 5) == 0
    back = ejection.readmitted(NOW_S)
    assert back.readiness(NOW_S) == pytest.approx(READINESS_MIN)
    assert back.readiness(NOW_S + SLOW_START_S / 2) == pytest.approx(0.55)
    assert back.readiness(NOW_S + SLOW_START_S) == 1
    assert back.readiness(NOW_S + 3600) == 1


def test_failing_probe_takes_over_from_calls() -> None:
    taken = once(once()).taken_over(reason="refused", text="takes no connections", now_s=NOW_S)
    assert (taken.by, taken.reason, taken.step) == (By.PROBE, "refused", 2)
    assert taken.state(NOW_S + 3600) == "ejected"


def test_clock_that_was_set_back_keeps_nobody_out() -> None:
    ejection = once()
    assert ejection.state(NOW_S - 86_400) == "trial"
    assert ejection.readmitted(NOW_S).readiness(NOW_S - 86_400) == 1


@given(
    steps=st.lists(st.tuples(st.sampled_from(["eject", "readmit", "take over"]), st.floats(-100, 100)), min_size=1, max_size=20)
)
def test_every_change_is_newer_than_the_one_before(steps: list[tuple[str, float]]) -> None:
    """Whatever the clock does: the newest record must win, or workers would disagree for ever."""
    ejection, now_s = once(), NOW_S
    for change, elapsed_s in steps:
        before, now_s = ejection.changed_s, now_s + elapsed_s
        if change == "eject":
            ejection = once(ejection, now_s=now_s)
        elif change == "readmit":
            ejection = ejection.readmitted(now_s)
        else:
            ejection = ejection.taken_over(reason="refused", text="takes no connections", now_s=now_s)
        assert ejection.changed_s > before
        assert 1 <= ejection.back_off_s <= BACK_OFF_MAX_S
        assert 0 <= ejection.readiness(now_s) <= 1
        assert Ejection.from_dict(orjson.loads(orjson.dumps(ejection.to_dict()))) == ejection
