"""Sheets as accessible HTML tables: what a page is built of, and what can be pasted into one.

No style and no script are needed. A screen reader hears what a sign means, each cell knows its row's and its column's
header, and the number behind a cell stands in ``data-order`` for whoever sorts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cnnbench.report_html import breakable, bullets, element, scroller, text

if TYPE_CHECKING:
    from cnnbench.sheets import Cell, Column, Sheet

_SIGNS: Final = {
    "▲": "better",
    "▼": "worse",
    "≈": "equivalent",
    "↓": "faster",
    "↑": "slower",
    "‡": "fewer multiply-adds, not measurably faster",
}
"""What a sign beside a difference or a ratio says, aloud."""


def sheet_html(sheet: Sheet) -> str:
    """A sheet as a table that scrolls by itself where it is too wide, and its notes as a list.

    The caption is the sheet's, or its title where it has none. The first column names the rows. Signs are images of
    text (``role="img"``) with their meaning as the label.
    """
    names, *others = sheet.columns
    caption = element("caption", text(sheet.caption or sheet.title))
    head = element("tr", "".join(_head(column) for column in sheet.columns))
    rows = [
        element("tr", _name(name) + "".join(map(_cell, cells)))
        for name, *cells in zip(names.cells, *(column.cells for column in others), strict=True)
    ]
    parts = (caption, element("thead", head), element("tbody", "\n" + "\n".join(rows) + "\n"))
    table = element("table", "\n" + "\n".join(parts) + "\n")
    notes = bullets((text(note) for note in sheet.notes), class_="notes")
    return "\n".join(filter(None, (scroller(table, f"Table: {sheet.title}"), notes)))


def _head(column: Column) -> str:
    unit = f" {element('span', text(f'[{column.unit}]'), class_='unit')}" if column.unit else ""
    kinds = {"class_": "follows"} if column.follows else {}
    hint = {"title": column.hint} if column.hint else {}
    return element("th", text(column.label) + unit, scope="col", **kinds, **hint)


def _name(cell: Cell) -> str:
    return element("th", _strong(cell, breakable(cell.text)), scope="row", **_order(cell))


def _cell(cell: Cell) -> str:
    inner = re.sub(f"[{''.join(_SIGNS)}]", lambda found: _sign(found[0]), text(cell.text))
    return element("td", _strong(cell, inner), **_order(cell))


def _sign(sign: str) -> str:
    return element("span", sign, role="img", aria_label=_SIGNS[sign], title=_SIGNS[sign], class_="sign")


def _strong(cell: Cell, inner: str) -> str:
    return element("strong", inner) if cell.strong else inner


def _order(cell: Cell) -> dict[str, str]:
    return {} if cell.order is None else {"data_order": repr(float(cell.order))}
