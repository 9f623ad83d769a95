"""Decision: what a rule did to a call, for its record. Never the text itself. Pure."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gateway.policy.rules import Holder

if TYPE_CHECKING:
    from gateway.policy.ruleset import Source


@dataclass(frozen=True, slots=True)
class Decision:
    """holder: whose policy it was, the tenant's or the platform's. surface: as in rules.SURFACES.

    start, end: characters of the surface's text as it was before anything was masked, of several texts of one surface in the
    one that was found; None where no span was found. is_failure: a judge gave no answer in time, and its rule says what then.
    """

    policy: str
    version: int
    rule: str
    kind: str
    action: str
    surface: str
    start: int | None = None
    end: int | None = None
    is_failure: bool = False
    holder: Holder = "tenant"

    def to_dict(self) -> dict[str, Any]:
        """As in records: what is None or False is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None and value is not False}


def decision(source: "Source", surface: str, start: int | None = None, end: int | None = None) -> Decision:
    rule = source.rule
    return Decision(source.policy, source.version, rule.name, rule.kind, rule.action, surface, start, end, holder=source.holder)
