"""How fast deployments generate: what to charge for a plain call whose client left before its answer, the only place
where the tokens generated so far cannot be known."""

from typing import Final

# Of each new observation: a few calls suffice to follow a change of load, one outlier does not tip it.
_WEIGHT: Final = 0.2


class Pace:
    """Tokens a second of one choice, by deployment, smoothed. One a worker."""

    __slots__ = ("_tokens_per_s",)

    def __init__(self) -> None:
        self._tokens_per_s: dict[str, float] = {}

    def note(self, deployment: str, *, tokens: int, seconds: float) -> None:
        """A whole answer of `tokens` in each choice took `seconds`, the prompt's own time included."""
        if tokens <= 0 or seconds <= 0:
            return
        seen = tokens / seconds
        before = self._tokens_per_s.get(deployment, seen)
        self._tokens_per_s[deployment] = before + _WEIGHT * (seen - before)

    def expected_tokens(self, deployment: str, *, seconds: float, most: int) -> int:
        """What one choice has probably come to after `seconds`; 0 while nothing is known of the deployment."""
        return min(most, int(self._tokens_per_s.get(deployment, 0.0) * seconds))
