"""What people read, before any format: columns of cells under a title, with notes.

A report is a list of sheets: the table of arms, and what stands beside it (effects of a factorial design, gains of the
steps of a cumulative one, an aggregate over datasets). Every format for people renders any sheet.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: as it is shown; no markup.
        strong: best of its column, or not to be told from the best.
        order: the number behind the text, for sorting; None where there is none.
    """

    text: str
    strong: bool = False
    order: float | None = None


@dataclass(frozen=True)
class Column:
    """One column of text.

    Attributes:
        label: first line of the header.
        unit: second line; empty for none.
        cells: one for each row.
        follows: belongs beside the column before it (a difference or a ratio beside its value).
        hint: what the header means, in a sentence; empty where the label says it.
    """

    label: str
    unit: str
    cells: tuple[Cell, ...]
    follows: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table for people.

    Attributes:
        key: ``table``, ``effects``, ``interactions``, ``steps`` or ``aggregate``; what files and anchors are named by.
        title: its heading.
        caption: a sentence or two under the heading; the question, for the table of arms.
        columns: the first names the rows; all have equally many cells.
        notes: footnotes, a sentence or a list each.
    """

    key: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()
