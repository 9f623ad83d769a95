"""The road of a call: to which deployment it goes, and which take it over where that one cannot. Pure."""

from hashlib import blake2b

from gateway.config.documents import Alias, Deployment, Platform
from usage.values import light_dataclass


@light_dataclass
class Road:
    """platform: as it was when the call came. alias: whose call it is. first: where it goes, for that alias and this call."""

    platform: Platform
    alias: Alias
    first: Deployment

    def where_out(self, deployment: Deployment) -> Deployment | None:
        """Which one takes over where every backend of `deployment` is out; from a canary that names none, the alias's own."""
        name = deployment.fallback or (self.alias.deployment if deployment.name == self.alias.canary else None)
        return None if name is None else self._other(name, deployment)

    def where_too_long(self, deployment: Deployment) -> Deployment | None:
        """Which one takes over a prompt that `deployment` has no room for."""
        name = deployment.context_fallback
        return None if name is None else self._other(name, deployment)

    def reach(self) -> tuple[Deployment, ...]:
        """All that this call may come to, the first one first."""
        if self.where_out(self.first) is None and self.where_too_long(self.first) is None:
            return (self.first,)
        found = {self.first.name: self.first}
        waiting = [self.first]
        for deployment in waiting:
            for other in (self.where_out(deployment), self.where_too_long(deployment)):
                if other is not None and other.name not in found:
                    found[other.name] = other
                    waiting.append(other)
        return tuple(found.values())

    def _other(self, name: str, deployment: Deployment) -> Deployment | None:
        return self.platform.deployments.get(name) if name != deployment.name else None


def drawn(alias: Alias, request_id: str) -> str:
    """The deployment for one call: the canary for its share of the calls, told by the call's id."""
    if alias.canary is None:
        return alias.deployment
    lot = int.from_bytes(blake2b(request_id.encode(), digest_size=8).digest(), "big") % 100
    return alias.canary if lot < alias.canary_percent else alias.deployment
