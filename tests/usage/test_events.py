"""Limits on a call's event: written as columns, read as what everything behind the journal knows, a list of them."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.usage.quota_calls import event
from usage.events import UsageEvent, limits_of
from usage.limits import CLAMPABLE, MAX, NAMES, SUBJECTS, Bound, BoundLimit, Limit
from usage.reservation import LimitStates

LIMITS = st.builds(
    lambda name, most, mode, clamps: Limit(name, most, mode, clamps=clamps and name in CLAMPABLE),
    st.sampled_from(NAMES), st.integers(0, MAX), st.sampled_from(["enforce", "shadow"]), st.booleans(),
)  # fmt: skip
# Names of aliases have been anything once.
BOUND = st.builds(BoundLimit, st.sampled_from(SUBJECTS), st.text(st.characters(codec="utf-8"), max_size=20), LIMITS)
AMOUNTS = st.integers(-MAX, MAX)  # of limits that were not enforced, and of a worker's share
SEEN = st.lists(st.tuples(BOUND, AMOUNTS, AMOUNTS), max_size=18)


def rows(seen: list[tuple[BoundLimit, int, int]]) -> list[dict[str, Any]]:
    """As they were written until version 3."""
    return [
        {
            "subject": bound.subject, "name": bound.subject_id, "limit": bound.limit.name, "used": used, "reserved": reserved,
            "max": bound.limit.max, "mode": bound.limit.mode,
        }
        for bound, used, reserved in seen
    ]  # fmt: skip


@given(SEEN, st.sampled_from([list, tuple]))
def test_limits_read_from_columns_are_those_of_the_older_form(seen: list[tuple[BoundLimit, int, int]], kind: type) -> None:
    used, reserved = kind(used for _, used, _ in seen), kind(reserved for _, _, reserved in seen)
    states = LimitStates(Bound(bound for bound, _, _ in seen), used, reserved, [0.0] * len(seen), 0)
    as_before = event("x", 1, 1, limits=rows(seen))
    without = {name: value for name, value in as_before.to_dict().items() if name != "limits"}
    line = orjson.dumps(without | {"limit_columns": states.columns()})
    read = UsageEvent.from_dict(orjson.loads(line))
    assert read == UsageEvent.from_dict(orjson.loads(as_before.json())) == as_before
    assert read.has_limits == bool(seen)
    assert UsageEvent.from_dict(orjson.loads(read.json())) == read


@pytest.mark.parametrize(
    "columns",
    [
        [], 7, "text", {}, {"of": [{}], "used": [1]}, {"of": [{}], "used": [1, 2], "reserved": [3]},
        {"of": [3], "used": [1], "reserved": [3]}, {"of": None, "used": [1], "reserved": [3]},
    ],
)  # fmt: skip
def test_columns_that_are_none_are_an_event_that_cannot_be_posted(columns: Any) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError)):
        limits_of(columns)
