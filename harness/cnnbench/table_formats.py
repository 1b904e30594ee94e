"""A table as text: for terminals, for Markdown, and as data in CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from tabulate import tabulate

from cnnbench.columns import Column, text_columns
from cnnbench.text import printable, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cnnbench.stats.intervals import Estimate
    from cnnbench.tables import Measured, Row, Table

_GAP = "  "
_WIDEST_NAME = 28
"""Terminal cells; longer names go on in the next line."""


def terminal(table: Table, width: int | None) -> str:
    """Aligned columns; where they don't fit side by side, stacked blocks that each begin with the arms' names."""
    width = width or shutil.get_terminal_size((100, 24)).columns
    arms, *others = text_columns(table)
    names = ("\n".join(wrapped(printable(name), _WIDEST_NAME, "  ")) for name in arms.cells)
    arms = replace(arms, cells=tuple(names))
    columns = [replace(c, label=printable(c.label), cells=_aligned([*map(printable, c.cells)])) for c in others]
    lines = wrapped(f"{printable(table.name)}: {printable(table.question)}".removesuffix(": "), width)
    for block in _blocks(arms, columns, width):
        lines += ["", *_grid(block)]
    lines.append("")
    for note in table.notes:
        lines += wrapped(note, width, "  ")
    return "\n".join(line.rstrip() for line in lines)


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
    return max(map(cell_len, [*_heads(column), *(line for cell in column.cells for line in cell.split("\n"))]))


def _heads(column: Column) -> tuple[str, str]:
    return column.label, f"[{column.unit}]" if column.unit else ""


def _grid(block: Sequence[Column]) -> Iterator[str]:
    """Two header lines, a rule, and the rows; widths in terminal cells, as East Asian characters take two."""
    widths = [_width(column) for column in block]
    for heads in zip(*map(_heads, block), strict=True):
        yield _line(heads, widths)
    yield _GAP.join("─" * width for width in widths)
    for name, *cells in zip(*(column.cells for column in block), strict=True):
        first, *more = name.split("\n")
        yield _line([first, *cells], widths)
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


def markdown(table: Table, _width: int | None = None) -> str:
    """A heading, the question, a pipe table and the notes as a list."""
    columns = text_columns(table)
    heads = [_escaped(column.label) + (f" [{column.unit}]" if column.unit else "") for column in columns]
    lines = [f"### {_escaped(table.name)}", ""]
    if table.question:
        lines += [_escaped(table.question), ""]
    rows = [[_escaped(cell) for cell in cells] for cells in zip(*(c.cells for c in columns), strict=True)]
    sides = ["left", *["right"] * (len(columns) - 1)]
    # tabulate would take "1e3" or "007" as an arm's name for a number.
    lines.append(tabulate(rows, heads, tablefmt="pipe", colalign=sides, disable_numparse=True))
    lines += ["", *(f"- {_escaped(note)}" for note in table.notes)]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|~&$#])", r"\\\1", printable(text))


def csv_text(table: Table, _width: int | None = None) -> str:
    """One line for each arm and quantity, in the recorded unit (the key names it), with all digits."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [*_ARM_FIELDS, "quantity", *_NUMBER_FIELDS, *_METHOD_FIELDS], lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        arm = {name: "" if value is None else value for name, value in _arm(row).items()}
        for quantity in table.quantities:
            measured = row.measured[quantity.key]
            numbers = {name: "" if value is None else value for name, value in _numbers(measured).items()}
            writer.writerow({**arm, "quantity": quantity.key, **numbers, **_methods(measured)})
    return out.getvalue().removesuffix("\n")


_ARM_FIELDS = ("arm", "role", "changes", "reference", "ok", "planned")
_METHOD_FIELDS = ("method", "diff_method")
_NUMBER_FIELDS = ("mean", "low", "high", "n", "diff", "diff_low", "diff_high", "diff_n")


def json_text(table: Table, _width: int | None = None) -> str:
    """The whole table as one JSON object: numbers in the recorded unit, with all digits, null where there is none."""
    data = {
        "suite": table.name,
        "question": table.question,
        "primary": table.primary,
        "seeds": list(table.seeds),
        "quantities": [asdict(quantity) for quantity in table.quantities],
        "arms": [
            {
                **_arm(row),
                "statuses": dict(row.statuses),
                "quantities": {
                    key: {**_numbers(measured), **{name: way or None for name, way in _methods(measured).items()}}
                    for key, measured in row.measured.items()
                },
            }
            for row in table.rows
        ],
        "notes": list(table.notes),
    }
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)


def _arm(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _ARM_FIELDS}


def _methods(measured: Measured) -> dict[str, str]:
    return dict(zip(_METHOD_FIELDS, (measured.method, measured.difference_method), strict=True))


def _numbers(measured: Measured) -> dict[str, Any]:
    def ends(estimate: Estimate | None) -> list[float | int | None]:
        return [estimate.mean, estimate.low, estimate.high, estimate.n] if estimate else [None, None, None, 0]

    return dict(zip(_NUMBER_FIELDS, ends(measured.value) + ends(measured.difference), strict=True))
