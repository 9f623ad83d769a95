"""What narrows and orders a list. What is asked stands in the URL; what is not valid there narrows nothing."""

from functools import reduce
from operator import or_
from typing import Any, ClassVar, TypeVar

from django import forms
from django.db.models import Model, Q, QuerySet
from django.utils.translation import gettext_lazy as _

Row = TypeVar("Row", bound=Model)


def search_field(label: Any, *, most: int = 128) -> forms.CharField:
    widget = forms.TextInput(attrs={"type": "search", "autocomplete": "off"})
    return forms.CharField(label=label, required=False, max_length=most, widget=widget)


def order_field(*choices: tuple[str, Any]) -> forms.ChoiceField:
    """Each a name of keyset.orders() and its words; the first is that of a page that was asked for none."""
    return forms.ChoiceField(label=_("Order"), required=False, choices=choices)


class Search(forms.Form):
    """q: a part of one of the columns in `paths`. sort: an order of the list, "" for its usual one."""

    paths: ClassVar[tuple[str, ...]] = ("name",)
    q = search_field(_("Name"))

    def narrowed(self, rows: QuerySet[Row]) -> QuerySet[Row]:
        """Once is_valid() was asked."""
        q = self.cleaned_data.get("q")
        return rows.filter(reduce(or_, (Q(**{f"{path}__icontains": q}) for path in self.paths))) if q else rows

    @property
    def is_narrow(self) -> bool:
        return any(value for name, value in self.cleaned_data.items() if name != "sort")

    def order(self, usual: str) -> str:
        return self.cleaned_data.get("sort") or usual
