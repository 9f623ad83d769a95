"""What charts and tables are made of: the same figures from whichever totals answer, to the last call."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.models import Tenant
from tests.usage.made import event
from usage import ledger
from usage.series import SEPARATOR, Asked, Dimension, Sums, buckets, every_row, how_many_rows, most_used, ranks, table, totals
from usage.spans import Span
from usage.totals import AMOUNTS, SUMS

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
KEYS = tuple(f"0198c0de-0000-7000-8000-{n:012}" for n in range(9))
PLAIN: tuple[Dimension, ...] = tuple(name for name in get_args(Dimension) if name not in ("end_user", "tag"))
CALLS = st.lists(
    st.fixed_dictionaries({
        "at": st.integers(0, 3 * 86400).map(lambda at_s: NOON - timedelta(seconds=at_s)),
        "alias": st.sampled_from(["a", "b", ""]),
        "key_id": st.sampled_from(KEYS),
        "status": st.sampled_from([200, 499]),
        "stream": st.booleans(),
        "duration_ms": st.integers(0, 7_200_000),
        "first_token_ms": st.none() | st.integers(0, 9000),
        "prompt_tokens": st.integers(0, 5000),
    }),
    max_size=30,
)  # fmt: skip


def asked(tenant: Tenant, span: Span, **wanted: tuple[str, ...]) -> Asked:
    days = 4 if span != "minute" else 0.1
    return Asked((str(tenant.pk),), tenant.zone, NOON - timedelta(days=days), NOON + timedelta(hours=1), span, wanted)  # type: ignore[arg-type]


def added(found: Any) -> Sums:
    return sum(found, Sums())


@pytest.mark.parametrize("span", ["minute", "hour", "day"])
@given(calls=CALLS, drawn=st.lists(st.sampled_from(KEYS), max_size=4, unique=True))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_way_to_ask_gives_the_same_sums(acme: Tenant, span: Span, calls: list[Any], drawn: list[str]) -> None:
    tenant = Tenant.objects.create(slug=f"made-{Tenant.objects.count()}", name="Made")
    ledger.post([event(tenant, **call) for call in calls])
    of = asked(tenant, span)
    whole = totals(of).get("", Sums(first_tokens=(0,) * 28))
    assert added(row.sums for row in buckets(of)).tokens == whole.tokens
    for dimension in PLAIN:
        by_name = totals(of, dimension)
        assert added([Sums(first_tokens=(0,) * 28), *by_name.values()]) == whole
        assert ranks(of, dimension, by=[("requests",), ("prompt_tokens", "completion_tokens")]) == {
            name: (sums.requests, sums.tokens) for name, sums in by_name.items()
        }
        some = [name for name in by_name if name < "b"]
        assert totals(of, dimension, only=some) == {name: by_name[name] for name in some}
        for sub in ("key", "stream"):
            pairs = totals(of, dimension, sub) if sub != dimension else {}
            assert totals(of, dimension, sub, only=list(pairs)[:3]) == {name: pairs[name] for name in list(pairs)[:3]}
    by_key = totals(of, "key")
    rows = buckets(of, "key", drawn=drawn)
    assert added([Sums(first_tokens=(0,) * 28), *(row.sums for row in rows)]) == whole
    for key in drawn:
        assert added(row.sums for row in rows if row.name == key).requests == by_key.get(key, Sums()).requests
    everything = [row for row in every_row(of, "key") if row.name not in drawn]
    rest = added(row.sums for row in rows if row.name is None)
    assert [getattr(rest, name) for name in AMOUNTS] == [sum(getattr(row.sums, name) for row in everything) for name in AMOUNTS]
    assert how_many_rows(of, "key", most=1000) == len(list(every_row(of, "key")))
    found = most_used(of, "key", 3)
    assert [sums.requests for _name, sums in found] == sorted((sums.requests for sums in by_key.values()), reverse=True)[:3]
    assert {names[0] for names in table(of, ("key",))} == {
        name for name, sums in by_key.items() if any(getattr(sums, one) for one in SUMS)
    }


def test_pairs_with_a_key_are_found_by_both(acme: Tenant) -> None:
    ledger.post([event(acme, NOON, key_id=key, alias=alias) for key in KEYS[:3] for alias in ("a", "b")])
    pair = f"{KEYS[0]}{SEPARATOR}a"
    of = asked(acme, "day")
    rows = {row.name: row.sums.requests for row in buckets(of, "key", "alias", drawn=[pair])}
    assert rows == {pair: 1, None: 5}
    assert {name: sums.requests for name, sums in totals(of, "key", "alias", only=[pair]).items()} == {pair: 1}
    assert totals(of, "key", only=[]) == {}


def test_the_rest_of_tags_is_what_is_left_of_all_tags(acme: Tenant) -> None:
    """A call may have several, and one without any is in none of them."""
    calls = [{"team": "a", "run": "1"}, {"team": "a"}, {"team": "b"}, None]
    ledger.post([event(acme, NOON, metadata=tags) for tags in calls])
    for span in ("hour", "day"):
        rows = buckets(asked(acme, span), "tag", drawn=["team=a"])
        assert {row.name: row.sums.requests for row in rows} == {"team=a": 2, None: 2}
    assert ranks(asked(acme, "day"), "tag", by=[("requests",)]) == {"team=a": (2,), "team=b": (1,), "run=1": (1,)}


def test_a_filter_by_key_narrows_what_all_keys_are_asked_for(acme: Tenant) -> None:
    ledger.post([event(acme, NOON, key_id=key) for key in KEYS])
    of = asked(acme, "day", key=KEYS[:2])
    assert totals(of)[""].requests == totals(of, "alias")["general"].requests == 2
    assert {row.name: row.sums.requests for row in buckets(of, "key", drawn=KEYS[:1])} == {KEYS[0]: 1, None: 1}


def test_only_the_amounts_that_are_asked_for_are_summed(acme: Tenant) -> None:
    ledger.post([event(acme, NOON)])
    (row,) = (row for row in buckets(asked(acme, "day"), amounts=("requests",), latencies=False) if row.sums.requests)
    assert (row.sums.requests, row.sums.prompt_tokens, row.sums.busy_ms, row.sums.first_tokens) == (1, 0, 0, ())
