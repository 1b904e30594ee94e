"""Sheets as text for people: for terminals, and for Markdown."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.cells import cell_len
from tabulate import tabulate

from cnnbench.text import escaped, printable, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cnnbench.sheets import Cell, Column, Sheet
    from cnnbench.tables import Report

_GAP = "  "
_WIDEST_NAME = 28
"""Terminal cells; longer names go on in the next line."""
_WIDEST_PAGE = 100
"""Characters of a row that a page of Markdown shows beside each other; what is wider has to be scrolled."""


def terminal(report: Report, width: int | None) -> str:
    """Each sheet as aligned columns; where they don't fit side by side, stacked blocks that begin with the names."""
    width = width or shutil.get_terminal_size((100, 24)).columns
    return "\n\n\n".join(_in_terminal(sheet, width) for sheet in report.sheets)


def _in_terminal(sheet: Sheet, width: int) -> str:
    names, *others = sheet.columns
    wraps = ["\n".join(wrapped(printable(cell.text), _WIDEST_NAME, "  ")) for cell in names.cells]
    names = _with_texts(names, wraps)
    columns = [_with_texts(column, _aligned([_starred(cell) for cell in column.cells])) for column in others]
    lines = wrapped(f"{printable(sheet.title)}: {printable(sheet.caption)}".removesuffix(": "), width)
    for block in _blocks(names, columns, width):
        lines += ["", *_grid(block)]
    lines.append("")
    for note in sheet.notes:
        lines += wrapped(printable(note), width, "  ")
    return "\n".join(line.rstrip() for line in lines).rstrip("\n")


def _starred(cell: Cell) -> str:
    return f"{printable(cell.text)} *" if cell.strong else printable(cell.text)


def _with_texts(column: Column, texts: Sequence[str]) -> Column:
    cells = tuple(replace(cell, text=text) for cell, text in zip(column.cells, texts, strict=True))
    return replace(column, label=printable(column.label), cells=cells)


def _blocks(arms: Column, columns: Sequence[Column], width: int) -> Iterator[list[Column]]:
    """Columns that fit the width beside the arms' names; a difference stays with its value as far as both fit."""
    groups: list[list[Column]] = []
    for column in columns:
        if column.follows and _total([arms, *groups[-1], column]) <= width:
            groups[-1].append(column)
        else:
            groups.append([column])
    block = [arms]
    for group in groups:
        if len(block) > 1 and _total([*block, *group]) > width:
            yield block
            block = [arms]
        block += group
    yield block


def _total(columns: Sequence[Column]) -> int:
    return sum(map(_width, columns)) + len(_GAP) * (len(columns) - 1)


def _width(column: Column) -> int:
    return max(map(cell_len, [*_heads(column), *(line for cell in column.cells for line in cell.text.split("\n"))]))


def _heads(column: Column) -> tuple[str, str]:
    return column.label, f"[{column.unit}]" if column.unit else ""


def _grid(block: Sequence[Column]) -> Iterator[str]:
    """Labels, units if any, a rule, and the rows; widths in terminal cells, as East Asian characters take two."""
    widths = [_width(column) for column in block]
    for heads in zip(*map(_heads, block), strict=True):
        if any(heads):
            yield _line(heads, widths)
    yield _GAP.join("─" * width for width in widths)
    for name, *cells in zip(*(column.cells for column in block), strict=True):
        first, *more = name.text.split("\n")
        yield _line([first, *(cell.text for cell in cells)], widths)
        yield from more


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    """The first text at the left of its column, the others at the right of theirs."""
    pads = [" " * (width - cell_len(text)) for text, width in zip(texts, widths, strict=True)]
    return _GAP.join([texts[0] + pads[0], *(pad + text for pad, text in zip(pads[1:], texts[1:], strict=True))])


def _aligned(cells: Sequence[str]) -> tuple[str, ...]:
    """Numbers padded so that decimal points and ± stand under each other; words after them at the left of their own."""
    split = [_NUMBER.fullmatch(cell) for cell in cells]
    parts = [[group or "" for group in match.groups()] if match else None for match in split]
    widths = [max((len(p[i]) for p in parts if p), default=0) for i in range(5)]
    aligned = []
    for cell, p in zip(cells, parts, strict=True):
        if p is None:
            aligned.append(cell)
        else:
            whole, fraction, half, half_fraction, words = p
            aligned.append(
                whole.rjust(widths[0])
                + fraction.ljust(widths[1])
                + half.rjust(widths[2])
                + half_fraction.ljust(widths[3])
                + words.ljust(widths[4])
            )
    return tuple(aligned)


_NUMBER = re.compile(r"([+−]?\d+)(\.\d+(?:e−?\d+)?)?(?:( ± \d+)(\.\d+)?)?( .*)?")


def markdown(report: Report, _width: int | None = None) -> str:
    """Each sheet under a heading: its caption, a pipe table and the notes as a list.

    A sheet that is too wide to be read on a page is several tables, each beginning with the names.
    """
    return "\n\n".join(_in_markdown(sheet) for sheet in report.sheets)


def _in_markdown(sheet: Sheet) -> str:
    names, *others = sheet.columns
    lines = [f"### {escaped(sheet.title)}", ""]
    if sheet.caption:
        lines += [escaped(sheet.caption), ""]
    for columns in _blocks(names, others, _WIDEST_PAGE):
        heads = [escaped(column.label) + (f" [{column.unit}]" if column.unit else "") for column in columns]
        rows = [[_bold(cell) for cell in cells] for cells in zip(*(c.cells for c in columns), strict=True)]
        sides = ["left", *["right"] * (len(columns) - 1)]
        # tabulate would take "1e3" or "007" as an arm's name for a number.
        lines += [tabulate(rows, heads, tablefmt="pipe", colalign=sides, disable_numparse=True), ""]
    lines += [f"- {escaped(note)}" for note in sheet.notes]
    return "\n".join(lines).rstrip("\n")


def _bold(cell: Cell) -> str:
    return f"**{escaped(cell.text)}**" if cell.strong else escaped(cell.text)
