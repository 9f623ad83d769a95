"""What usage is measured in: how each figure comes out of sums, how it is drawn, and how it reads. No I/O."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from django.utils import formats
from django.utils.functional import Promise
from django.utils.translation import get_language, gettext_lazy, pgettext_lazy
from django.utils.translation import gettext as _

from usage.money import units
from usage.series import Sums

Amount = float | int | None

# Japanese counts by ten thousands.
_STEPS: Final = {"ja": ((10**12, "兆"), (10**8, "億"), (10**4, "万"))}
_STEPS_ELSE: Final = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))


def whole(value: Amount) -> str:
    return "–" if value is None else formats.number_format(round(value), use_l10n=True, force_grouping=True)


def wholes(values: Sequence[Amount]) -> list[str]:
    """The same of very many: asking for the language's way once, not for each, takes a twentieth of the time."""
    if formats.get_format("NUMBER_GROUPING") != 3:
        return [whole(value) for value in values]
    separator = formats.get_format("THOUSAND_SEPARATOR")
    return ["–" if value is None else f"{round(value):,}".replace(",", separator) for value in values]


def compact(value: Amount) -> str:
    """As an axis says it: 12.4K, 3万."""
    if value is None:
        return "–"
    for size, word in _STEPS.get(get_language() or "", _STEPS_ELSE):
        if abs(value) >= size:
            return f"{_short(value / size)}{word}"
    return _short(value)


def seconds(value_ms: Amount) -> str:
    return "–" if value_ms is None else _("%(number)s s") % {"number": _decimals(value_ms / 1000, 2)}


def duration(value_ms: Amount) -> str:
    """Of one call, or of a part of it, which may be thousandths of what the others are: a call of 2 ms took no 0.00 s."""
    if value_ms is None or round(value_ms) >= 1000:
        return seconds(value_ms)
    near = round(value_ms, 2)
    return _("%(number)s ms") % {"number": _decimals(near, 2 if near < 10 and near % 1 else 0)}


def seconds_short(value_ms: Amount) -> str:
    return "–" if value_ms is None else _("%(number)s s") % {"number": _short(value_ms / 1000)}


def money(nano: Amount) -> str:
    if nano is None:
        return "–"
    exact = Decimal(units(round(nano)))
    return formats.number_format(
        exact.quantize(Decimal("0.01" if exact >= 1 else "0.0001")), use_l10n=True, force_grouping=True
    )


def money_short(nano: Amount) -> str:
    return "–" if nano is None else compact(nano / 10**9)


def rate(value: Amount) -> str:
    return "–" if value is None else _decimals(value, 1)


def percent(part: float, all_of_it: float) -> str:
    return _("%(number)s%%") % {"number": _decimals(100 * part / all_of_it, 1)} if all_of_it else "–"


@dataclass(frozen=True, slots=True)
class Measure:
    """of: the figure, given sums and how many seconds they are of. is_summed: its parts add up, so that bars can stack.

    unit: "" where the name says it. reads: the columns of Sums that it is made of; of what is summed it is their sum.
    """

    name: str
    label: Promise
    unit: Promise | str
    of: Callable[[Sums, float], Amount]
    reads: tuple[str, ...]
    is_summed: bool = True
    shown: Callable[[Amount], str] = whole
    short: Callable[[Amount], str] = compact

    def all_shown(self, values: Sequence[Amount]) -> list[str]:
        return wholes(values) if self.shown is whole else [self.shown(value) for value in values]

    def of_total(self, parts: Sequence[float]) -> float | None:
        """What the parts make together; None where they do not add up."""
        return sum(parts) if self.is_summed else None


_TOKENS: Final = pgettext_lazy("unit", "tokens")
_CALLS: Final = pgettext_lazy("unit", "requests")
_TIME: Final = pgettext_lazy("unit", "seconds")

MEASURES: Final[dict[str, Measure]] = {
    measure.name: measure
    for measure in (
        Measure("requests", gettext_lazy("Requests"), _CALLS, lambda s, _s: s.requests, ("requests",)),
        Measure("tokens", gettext_lazy("Tokens"), _TOKENS, lambda s, _s: s.tokens, ("prompt_tokens", "completion_tokens")),
        Measure("prompt", gettext_lazy("Input tokens"), _TOKENS, lambda s, _s: s.prompt_tokens, ("prompt_tokens",)),
        Measure(
            "completion", gettext_lazy("Output tokens"), _TOKENS, lambda s, _s: s.completion_tokens, ("completion_tokens",)
        ),
        Measure("cached", gettext_lazy("Cached input"), _TOKENS, lambda s, _s: s.cached_tokens, ("cached_tokens",)),
        Measure("errors", gettext_lazy("Errors"), _CALLS, lambda s, _s: s.errors, ("errors",)),
        Measure("refused", gettext_lazy("Refused"), _CALLS, lambda s, _s: s.refused, ("refused",)),
        Measure("blocked", gettext_lazy("Blocked"), _CALLS, lambda s, _s: s.blocked, ("blocked",)),
        Measure(
            "first_p50", gettext_lazy("First token p50"), _TIME, lambda s, _s: s.first_token_ms(0.5), (),
            is_summed=False, shown=seconds, short=seconds_short,
        ),
        Measure(
            "first_p95", gettext_lazy("First token p95"), _TIME, lambda s, _s: s.first_token_ms(0.95), (),
            is_summed=False, shown=seconds, short=seconds_short,
        ),
        Measure(
            "rate", gettext_lazy("Output tokens per second"), "", lambda s, of_s: s.completion_tokens / of_s,
            ("completion_tokens",), is_summed=False, shown=rate,
        ),
        Measure(
            "concurrency", gettext_lazy("Concurrent calls (average)"), "", lambda s, of_s: s.busy_ms / 1000 / of_s,
            ("busy_ms",), is_summed=False, shown=rate,
        ),
        Measure("cost", gettext_lazy("Cost"), "", lambda s, _s: s.cost_nano, ("cost_nano",), shown=money, short=money_short),
    )
}  # fmt: skip


def _short(value: float) -> str:
    """Three digits at most, unless it is whole."""
    if abs(value) >= 100 or value == int(value):
        return _decimals(value, 0)
    return _decimals(value, 2 if abs(value) < 1 else 1).rstrip("0").rstrip(".")


def _decimals(value: float, places: int) -> str:
    return formats.number_format(round(value, places) + 0.0, places, use_l10n=True, force_grouping=True)
