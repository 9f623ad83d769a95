"""Where things of a tenant live in Redis: in one of 16 partitions, each one hash slot of a Redis Cluster. Pure.

sekisho:{pNN}:whole                                        there while the counters of the partition are whole
sekisho:{pNN}:counting                                     there while they are being restored: the journal stands still
sekisho:{pNN}:journal                                      stream: events not yet posted
sekisho:{pNN}:leases                                       sorted set: request ids by the end of their leases, in ms
sekisho:{pNN}:r:<request id>                               hash: a reservation
sekisho:{pNN}:s:<request id>                               text: what was posted of a call, kept for two hours
sekisho:{pNN}:q:<tenant>:<subject>:<id>:counters           packed numbers, see lua/counters.lua
sekisho:{pNN}:q:<tenant>:<subject>:<id>:counters:<code>    hash: the buckets of one with a window
sekisho:{pNN}:q:<tenant>:<subject>:<id>:live               sorted set: its reservations by the end of their leases
"""

from functools import lru_cache
from typing import Final
from zlib import crc32

PARTITIONS: Final = 16


@lru_cache(maxsize=8192)
def partition(tenant_id: str) -> int:
    """The partition of a tenant, 0 to 15: for ever the same."""
    return crc32(tenant_id.encode()) % PARTITIONS


def tag(number: int) -> str:
    """The hash tag that keeps the keys of a partition in one slot."""
    return f"{{p{number:02d}}}"


@lru_cache(maxsize=PARTITIONS)
def base(number: int) -> str:
    """What every key of a partition begins with."""
    return f"sekisho:{tag(number)}:"


def journal_key(number: int) -> str:
    return f"{base(number)}journal"


@lru_cache(maxsize=PARTITIONS)
def alive_key(number: int) -> str:
    """There while the counters of the partition are whole: it is missing when Redis was emptied, and on the first day."""
    return f"{base(number)}whole"


def leases_key(number: int) -> str:
    return f"{base(number)}leases"


def subject_key(tenant_id: str, subject: str, subject_id: str) -> str:
    """What the keys of one key's, alias's or tenant's begin with; `counters` or `live` follows."""
    return f"{base(partition(tenant_id))}q:{tenant_id}:{subject}:{subject_id}:"
