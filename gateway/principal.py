"""Principal: who makes this call, and what that key may do. Pure."""

from gateway.config.documents import Alias, Key, Tenant
from usage.values import light_dataclass


@light_dataclass
class Principal:
    """An authenticated key and its tenant. Set as DRF's `request.user`; equal for all calls with the same key."""

    tenant: Tenant
    key: Key

    is_authenticated = True  # the word DRF asks for

    @property
    def error_dialect(self) -> str:
        return self.key.error_dialect or self.tenant.error_dialect

    def has_scope(self, scope: str) -> bool:
        return scope in self.key.scopes

    def alias(self, name: str) -> Alias | None:
        """The tenant's alias `name` if this key may use it; None when it is absent or not this key's."""
        if self.key.aliases is not None and name not in self.key.aliases:
            return None
        return self.tenant.aliases.get(name)

    def aliases(self) -> list[Alias]:
        """Every alias this key may use, by name."""
        allowed = self.key.aliases
        return sorted((a for a in self.tenant.aliases.values() if allowed is None or a.name in allowed), key=lambda a: a.name)
