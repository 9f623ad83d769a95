"""Keys of a tenant stay in one hash slot, in the same partition for ever."""

from collections import Counter

import pytest
from redis.crc import key_slot
from uuid_utils.compat import uuid7

from usage import partitions

ACME = "0198c0de-0000-7000-8000-000000000001"


def test_a_tenant_stays_in_its_partition() -> None:
    assert partitions.partition(ACME) == 9  # a new release that says otherwise would lose every counter


def test_tenants_spread_over_all_partitions() -> None:
    spread = Counter(partitions.partition(str(uuid7())) for _ in range(4000))
    assert set(spread) == set(range(partitions.PARTITIONS))
    assert max(spread.values()) < 2 * 4000 / partitions.PARTITIONS


def test_all_keys_of_a_tenant_are_in_one_slot_of_a_cluster() -> None:
    number = partitions.partition(ACME)
    keys = [
        partitions.alive_key(number),
        partitions.journal_key(number),
        partitions.leases_key(number),
        partitions.subject_key(ACME, "alias", "a{b}c") + "tokens_per_hour",
    ]
    assert len({key_slot(key.encode()) for key in keys}) == 1


def test_partitions_have_slots_of_their_own() -> None:
    slots = {key_slot(partitions.base(number).encode()) for number in range(partitions.PARTITIONS)}
    assert len(slots) == partitions.PARTITIONS


@pytest.mark.parametrize(("number", "tag"), [(0, "{p00}"), (15, "{p15}")])
def test_the_tag_is_the_partition(number: int, tag: str) -> None:
    assert partitions.tag(number) == tag
    assert partitions.journal_key(number) == f"sekisho:{tag}:journal"
