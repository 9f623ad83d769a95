"""The limits of one holder: a row for each that there can be; an empty one means none."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from django import forms
from django.db.models import QuerySet
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from gateway.config.limits import MONEY, plain
from portal.forms.search import Row as Listed
from portal.forms.search import Search, search_field
from portal.templatetags.display import amount
from portal.wording import LIMITS
from usage.limits import CLAMPABLE, MAX, NAMES, Limit
from usage.money import NANO

REFUSE: Final = ("enforce", gettext_lazy("Refuse the call"))
SHORTEN: Final = ("clamp", gettext_lazy("Shorten the answer, refuse when nothing fits"))
COUNT: Final = ("shadow", gettext_lazy("Only count"))
UNITS: Final[dict[str, Promise]] = {
    "requests_per_minute": gettext_lazy("calls"),
    "tokens_per_hour": gettext_lazy("tokens"),
    "tokens_per_day": gettext_lazy("tokens"),
    "tokens_per_month": gettext_lazy("tokens"),
    "concurrent_requests": gettext_lazy("calls"),
    "money_per_month": gettext_lazy("units of the currency"),
}


class LimitFilter(Search):
    """q: part of the name of an alias or a key. kind: a name of a limit, "" for any."""

    paths = ("alias__name", "key__name")
    q = search_field(gettext_lazy("Alias or key"))
    kind = forms.ChoiceField(label=gettext_lazy("Limit"), required=False, choices=[("", gettext_lazy("Any")), *LIMITS.items()])

    def narrowed(self, rows: QuerySet[Listed]) -> QuerySet[Listed]:
        kind, found = self.cleaned_data.get("kind"), super().narrowed(rows)
        return found.filter(name=kind) if kind else found


@dataclass(frozen=True, slots=True)
class Row:
    """ceiling: what the tenant's own limit of this name allows; None: it has none."""

    name: str
    unit: Promise
    most: forms.BoundField
    beyond: forms.BoundField
    ceiling: int | None


class LimitsForm(forms.Form):
    """`wanted` says them once the form is valid. ceilings: what none of them may pass, by name."""

    def __init__(
        self,
        *args: Any,
        held: Iterable[Limit] = (),
        ceilings: Mapping[str, int] | None = None,
        is_editable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **{"initial": dict(_initial(held)), **kwargs})
        self._ceilings = ceilings or {}
        for name in NAMES:
            self.fields[name] = _money(name) if name == MONEY else _number(name)
            choices = [REFUSE, SHORTEN, COUNT] if name in CLAMPABLE else [REFUSE, COUNT]
            label = _("%(limit)s: beyond it") % {"limit": LIMITS[name]}
            self.fields[f"{name}_beyond"] = forms.ChoiceField(label=label, required=False, choices=choices, initial=REFUSE[0])
        for field in self.fields.values():
            field.disabled = not is_editable

    def clean(self) -> None:
        for name in NAMES:
            most = self._most(name)
            if most is not None and most > self._ceilings.get(name, MAX):
                facts = {"most": amount(self._ceilings[name], name) if name in self._ceilings else MAX}
                self.add_error(name, _("The whole tenant may use %(most)s: give that or less.") % facts)

    @property
    def wanted(self) -> tuple[Limit, ...]:
        return tuple(self._limit(name, most) for name in NAMES if (most := self._most(name)) is not None)

    def rows(self) -> Iterator[Row]:
        for name in NAMES:
            yield Row(name, UNITS[name], self[name], self[f"{name}_beyond"], self._ceilings.get(name))

    def _most(self, name: str) -> int | None:
        """In tokens, calls or nano-units."""
        most = self.cleaned_data.get(name)
        return None if most is None else int(most * NANO) if name == MONEY else int(most)

    def _limit(self, name: str, most: int) -> Limit:
        beyond = self.cleaned_data.get(f"{name}_beyond")
        return Limit(name, most, "shadow" if beyond == "shadow" else "enforce", beyond == "clamp")


def _number(name: str) -> forms.Field:
    return forms.IntegerField(label=str(LIMITS[name]), required=False, min_value=1, max_value=MAX, widget=_input("1"))


def _money(name: str) -> forms.Field:
    most = Decimal(MAX // NANO)
    return forms.DecimalField(
        label=str(LIMITS[name]),
        required=False,
        min_value=Decimal("0.01"),
        max_value=most,
        decimal_places=9,
        max_digits=16,
        widget=_input("any"),
    )


def _input(step: str) -> forms.NumberInput:
    return forms.NumberInput(attrs={"step": step, "autocomplete": "off"})


def _initial(held: Iterable[Limit]) -> Iterator[tuple[str, Any]]:
    for limit in held:
        yield limit.name, plain(Decimal(limit.max) / NANO) if limit.name == MONEY else limit.max
        yield f"{limit.name}_beyond", "clamp" if limit.clamps else limit.mode
