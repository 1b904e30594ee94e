"""What notebooks show: fragments of HTML with their own style, which touch nothing of the page around them.

They load nothing, run no script, and take the notebook's own colours; verdicts have theirs, for light and for dark.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from cnnbench.report_findings import coloured, kept
from cnnbench.report_html import element, scroller, text
from cnnbench.table_html import sheet_html

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cnnbench.sheets import Sheet


def sheets_fragment(sheets: Iterable[Sheet], said: Iterable[str] = ()) -> str:
    """Sheets as tables with their notes, after what is said of them.

    Args:
        sheets: in reading order.
        said: sentences.
    """
    lead = [element("p", kept(text(one))) for one in said]
    return fragment("\n".join([*lead, *(coloured(sheet_html(sheet)) for sheet in sheets)]))


def rows_fragment(caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Texts as a table whose first column names the rows.

    Args:
        caption: above it.
        heads: of the columns.
        rows: a text for each column.
    """
    head = element("tr", "".join(element("th", text(one), scope="col") for one in heads))
    body = [
        element("tr", element("th", text(first), scope="row") + "".join(element("td", text(one)) for one in others))
        for first, *others in rows
    ]
    parts = (element("caption", text(caption)), element("thead", head), element("tbody", "\n".join(body)))
    return fragment(scroller(element("table", "\n".join(parts), class_="plain"), f"Table: {caption}"))


def fragment(body: str) -> str:
    """HTML with the style that it needs."""
    style = files("cnnbench").joinpath("notebook_style.css").read_text(encoding="utf-8")
    return f'<div class="cnnbench">\n<style>\n{style}</style>\n{body}\n</div>'
