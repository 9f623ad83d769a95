"""Which month is reported: one of those that have figures, in the URL as 2026-11."""

import re
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.utils import formats
from django.utils.translation import gettext as _

from portal.forms.menus import Menu
from usage.monthly import Month

OFFERED_MOST: Final = 60
_TEXT: Final = re.compile(r"(\d{4})-(\d{2})\Z", re.ASCII)


class MonthFilter(forms.Form):
    """first: the earliest with figures, None for none; current: the running one, which is the default."""

    def __init__(self, *args: Any, first: Month | None, current: Month, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._current = current
        months = [current]
        while first is not None and months[-1] > first and len(months) < OFFERED_MOST:
            months.append(months[-1].previous)
        asked = str(self.data.get("month", ""))
        offered = {str(month): named(month) for month in months}
        if (other := _month(asked)) and asked not in offered:
            offered[asked] = named(other)
        widget = Menu(choices=list(offered.items()))
        self.fields["month"] = forms.CharField(label=_("Month"), required=False, widget=widget)
        if not asked:
            self.data = {**dict(self.data.items()), "month": str(current)}

    def clean_month(self) -> Month:
        found = _month(self.cleaned_data["month"] or str(self._current))
        if found is None:
            raise ValidationError(_("This is no month; write it like 2026-11, from the year 2000 on."))
        if found > self._current:
            raise ValidationError(_("This month has not begun. Take an earlier one."))
        return found

    @property
    def month(self) -> Month:
        """Once it is valid."""
        found: Month = self.cleaned_data["month"]
        return found


def named(month: Month) -> str:
    """November 2026, 2026年11月."""
    return str(formats.date_format(month.first, "YEAR_MONTH_FORMAT"))


def _month(text: str) -> Month | None:
    found = _TEXT.match(text)
    if not found or not 2000 <= int(found[1]) < 2200 or not 1 <= int(found[2]) <= 12:
        return None
    return Month(int(found[1]), int(found[2]))
