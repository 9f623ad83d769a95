"""Figures of tables, as the cells of a row: there are thousands on a page, and a template would take 40 us for each."""

from collections.abc import Iterable

from django import template
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from portal.behind import Cell
from portal.charts import Chart

register = template.Library()


@register.filter
def as_cells(figures: Iterable[Cell]) -> SafeString:
    """Each leads to the calls behind it, where there are any."""
    return mark_safe("".join(map(_cell, figures)))  # noqa: S308 - of escaped texts


@register.filter
def as_rows(chart: Chart) -> SafeString:
    """The figures of a chart, a row for each bucket, and for chart.js when it begins: where the one before it ends."""
    rows = []
    for row in chart.rows:
        cells = [*row.cells, *([row.total] if chart.has_total else []), *([row.before] if chart.before else [])]
        figures = "".join(map(_cell, cells))
        rows.append(f'<tr data-from="{row.starts}"><th scope="row">{escape(row.label)}</th>{figures}</tr>\n')
    if rows:
        rows[-1] = rows[-1].replace("<tr ", f'<tr data-to="{chart.rows[-1].ends}" ', 1)
    return mark_safe("".join(rows))  # noqa: S308 - of escaped texts


def _cell(figure: Cell) -> str:
    text = escape(figure.text)
    return f'<td><a href="{escape(figure.url)}">{text}</a></td>' if figure.url else f"<td>{text}</td>"
