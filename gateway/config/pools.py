"""Pools of deployments as the configuration file says them: read, compared, written by plan.py."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from gateway.config.file_format import Entry
from gateway.config.source import known_names
from gateway.config.steps import Draft
from gateway.models import Backend, Deployment, PoolMember


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a backend is in a pool; a field each of PoolMember's."""

    weight: int = 1
    tier: int = 0
    max_concurrent_calls: int | None = None

    @classmethod
    def of(cls, member: PoolMember) -> Self:
        return cls(member.weight, member.tier, member.max_concurrent_calls)

    @property
    def shown(self) -> int | dict[str, Any]:
        """The weight alone where that is all there is to say."""
        return self.weight if self == Terms(self.weight) else asdict(self)


def wanted(entries: Iterable[Entry], backends: Mapping[str, Backend]) -> dict[str, Terms]:
    """The whole pool that the file names, by the backends' names; what is wrong with it is on file then."""
    pool = {}
    for entry in entries:
        if entry.name not in backends:
            entry.at("backend").refuse(f'no backend named "{entry.name}"', known_names(backends))
        terms = Terms(**{name: value for name, value in entry.values.items() if name != "backend"})
        Draft(entry, entry.name, PoolMember(**asdict(terms)), is_new=True).check()
        pool[entry.name] = terms
    return pool


def write(deployment: Deployment, pool: Mapping[str, Terms], backends: Mapping[str, Backend]) -> None:
    """Make `pool` the pool of `deployment`. Rows that say so already are left alone."""
    held = {member.backend.name: member for member in deployment.members.select_related("backend")}
    for name in held.keys() - pool.keys():
        held[name].delete()
    for name, terms in pool.items():
        member = held.get(name)
        if member is None:
            PoolMember.objects.create(deployment=deployment, backend=backends[name], **asdict(terms))
        elif Terms.of(member) != terms:
            for field, value in asdict(terms).items():
                setattr(member, field, value)
            member.save()
