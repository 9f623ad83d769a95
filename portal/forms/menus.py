"""A menu of choices, drawn without a template for each of its options: a filter bar has fifty, and Django's own took 15 ms."""

from typing import Any

from django import forms
from django.forms.utils import flatatt
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe


class Menu(forms.Select):
    """Without groups of options."""

    def render(self, name: str, value: Any, attrs: dict[str, Any] | None = None, renderer: Any = None) -> SafeString:
        widget = self.get_context(name, value, attrs)["widget"]
        options = "".join(_option(option) for _name, group, _index in widget["optgroups"] for option in group)
        return mark_safe(f'<select name="{escape(widget["name"])}"{flatatt(widget["attrs"])}>{options}</select>')  # noqa: S308


def _option(option: dict[str, Any]) -> str:
    selected = " selected" if option["selected"] else ""
    return f'<option value="{escape(option["value"])}"{selected}>{escape(option["label"])}</option>'
