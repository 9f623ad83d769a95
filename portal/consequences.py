"""What other limits would mean, before they are saved: what is used now, against the new value."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from portal.standing import BAR, NEARLY, Standing
from usage.limits import NAMES, Limit

Fate = Literal["removed", "new", "full", "nearly", "room", "unknown"]


@dataclass(frozen=True, slots=True)
class Consequence:
    """before, after: None where there is no such limit. standing: how it stands now; None: it is new."""

    name: str
    before: Limit | None
    after: Limit | None
    standing: Standing | None

    @property
    def fate(self) -> Fate:
        """removed: it holds nothing back any more. new: nothing was counted. full: used up at once; nearly; room."""
        if self.after is None:
            return "removed"
        if self.standing is None:
            return "new"
        if self.standing.state is None:
            return "unknown"
        taken = self.standing.state.used + self.standing.state.reserved
        if taken >= self.after.max:
            return "full"
        return "nearly" if taken * BAR >= self.after.max * NEARLY else "room"

    @property
    def stops_calls(self) -> bool:
        return self.fate == "full" and self.after is not None and self.after.is_enforced


def consequences(standings: Sequence[Standing], wanted: Iterable[Limit]) -> list[Consequence]:
    """standings: of all limits that are held now. One for each that changes, in the order of NAMES."""
    held = {standing.row.name: standing for standing in standings}
    asked = {limit.name: limit for limit in wanted}
    found = []
    for name in NAMES:
        standing = held.get(name)
        before, after = standing.row.configured if standing else None, asked.get(name)
        if before != after:
            found.append(Consequence(name, before, after, standing))
    return found
