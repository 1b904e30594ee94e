"""The table of arms as a sheet: its numbers as text, the same in every format that people read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from cnnbench.numerals import (
    MISSING,
    Scale,
    factor,
    interval_decimals,
    number,
    power_of_ten,
    scale,
    significant,
    with_interval,
)
from cnnbench.quantities import is_ratio, ratio_beside
from cnnbench.sheets import Cell, Column, Sheet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cnnbench.quantities import Quantity
    from cnnbench.stats.intervals import Estimate
    from cnnbench.stats.verdicts import Verdict
    from cnnbench.tables import Measured, Row, Table

SIGNS: Final[Mapping[Verdict, str]] = {"better": "▲", "worse": "▼", "equivalent": "≈", "unresolved": ""}
_ORDER: Final[Mapping[Verdict, float]] = {"better": 3, "equivalent": 2, "unresolved": 1, "worse": 0}
_NOISE = 1e-9
"""Spread below this share of the mean is rounding, not variation."""
_TINY = 1e-4
"""Values below it, of quantities that have no smaller unit, are shown with a power of ten."""


def arms_sheet(table: Table, number: int = 1) -> Sheet:
    """The sheet of a table of arms.

    Args:
        table: what it shows.
        number: which of a run's datasets it is of, from 1; the key of those after the first tells it.
    """
    return Sheet(
        key="table" if number == 1 else f"table-{number}",
        title=f"{table.name} on {table.dataset}" if table.dataset else table.name,
        caption=table.question,
        columns=tuple(text_columns(table)),
        notes=table.notes,
    )


def text_columns(table: Table) -> list[Column]:
    """``arm``, ``ok``, ``verdict``, then each quantity's value and, where it is compared, its difference or ratio.

    The verdict is that of the primary quantity, in words. Others are signs: beside the difference or the ratio, and
    beside the value where there is neither.
    """
    columns = [
        Column("arm", "", tuple(Cell(_named(row)) for row in table.rows)),
        Column(
            "ok",
            "",
            tuple(Cell(f"{row.ok}/{row.planned}", order=row.ok) for row in table.rows),
            hint="trials that are ok, of those planned",
        ),
        *_verdicts(table),
    ]
    for quantity in table.quantities:
        measured = [row.measured[quantity.key] for row in table.rows]
        shown = scale(quantity, (m.value.mean for m in measured if m.value))
        values = [m.value.mean * shown.factor if m.value else None for m in measured]
        if is_ratio(quantity):
            cells = _cells(_ratios(table, quantity, measured), values)
            columns.append(Column(quantity.label, quantity.unit, cells, True, "time over that of the reference"))
            continue
        beside = compared(table, quantity)
        texts: Sequence[str] = _values(table, quantity, shown, measured)
        if not beside and ratio_beside(quantity) not in table.quantities:
            texts = [_signed(text, row, quantity) for text, row in zip(texts, table.rows, strict=True)]
        columns.append(Column(quantity.label, shown.unit, _cells(texts, values, [m.strong for m in measured])))
        if beside:
            unit = "pp" if shown.unit == "%" else shown.unit
            differences = [m.difference.mean * shown.factor if m.difference else None for m in measured]
            cells = _cells(_differences(table, quantity, shown, measured), differences)
            hint = "difference from the reference in the same seeds"
            columns.append(Column(f"Δ {quantity.label}", unit, cells, True, hint))
    return columns


def _cells(
    texts: Sequence[str], order: Sequence[float | None], strong: Sequence[bool] | None = None
) -> tuple[Cell, ...]:
    given = zip(texts, strong or [False] * len(texts), order, strict=True)
    return tuple(Cell(text, best, number) for text, best, number in given)


def _verdicts(table: Table) -> list[Column]:
    """The primary quantity's verdict in words; no column where none is judged."""
    primary = next(q for q in table.quantities if q.key == table.primary)
    cells = []
    for row in table.rows:
        judgement = row.measured[primary.key].judgement
        if row.role != "arm":
            cells.append(Cell(""))
        elif judgement is None:
            cells.append(Cell(MISSING))
        else:
            few = f" (n={judgement.n})" if judgement.verdict == "unresolved" else ""
            cells.append(Cell(f"{judgement.verdict}{few}", order=_ORDER[judgement.verdict]))
    if all(cell.order is None for cell in cells):
        return []
    return [Column("verdict", "", tuple(cells), hint=f"what the seeds decide of {primary.label}")]


def _signed(text: str, row: Row, quantity: Quantity) -> str:
    """A value's text with its verdict's sign; that equal values are equal needs none."""
    judgement = row.measured[quantity.key].judgement
    if judgement is None or judgement.difference is None or judgement.difference.mean == 0:
        return text
    return f"{text} {verdict_sign(row, quantity)}".rstrip()


def verdict_sign(row: Row, quantity: Quantity) -> str:
    """``▲`` better, ``▼`` worse, ``≈`` equivalent; empty where the verdict is open, and for a placebo."""
    judgement = row.measured[quantity.key].judgement
    return SIGNS[judgement.verdict] if judgement and row.role != "placebo" else ""


def compared(table: Table, quantity: Quantity) -> bool:
    """Whether the columns for people hold the quantity's difference; data formats hold every one."""
    arms = {row.arm for row in table.rows}
    return any(row.role == "baseline" or row.reference in arms for row in table.rows) and (
        quantity.stage == "evaluate" or quantity.key == table.primary
    )


def finest(table: Table, quantity: Quantity) -> float:
    """Most decimals of a difference without interval: of quality those of its column's values, as finer is noise.

    In cost a small difference may be all that a fast arm takes, so there is no bound.
    """
    if quantity.stage != "evaluate":
        return math.inf
    values = [value for row in table.rows if (value := row.measured[quantity.key].value)]
    shown = scale(quantity, (value.mean for value in values))
    column = _decimals(values, shown, 3)
    decimals = [_with_interval(value, shown) if spread(value) else _own(value, shown, column) for value in values]
    return max(decimals, default=0)


def spread(estimate: Estimate) -> float:
    """Half the interval's width; 0 where there is no interval or nothing but rounding.

    The intervals of ratios and of medians are not even; of these it is the longer side.
    """
    if estimate.low is None or estimate.high is None:
        return 0.0
    half = max(estimate.high - estimate.mean, estimate.mean - estimate.low)
    return half if half > _NOISE * abs(estimate.mean) else 0.0


def mark(method: str) -> str:
    """What stands beside a value that was not measured."""
    if "estimated" in method:
        return "est."
    return ", ".join(way for way in method.split(", ") if way != "measured")


def single(rows: Sequence[Row], quantity: Quantity) -> bool:
    """Whether no arm has the quantity from more than one seed; a footnote says it then, not every cell."""
    values = (row.measured[quantity.key].value for row in rows)
    return max((value.n for value in values if value), default=0) == 1


def _named(row: Row) -> str:
    return row.arm if row.role in {"arm", row.arm} else f"{row.arm} ({row.role})"


def _values(table: Table, quantity: Quantity, shown: Scale, measured: list[Measured]) -> tuple[str, ...]:
    decimals = _decimals([m.value for m in measured], shown, 4 if quantity.stage == "profile" else 3)
    # Parameters, multiply-adds and bytes hardly depend on the seed: that one seed gave them needs no mark.
    marked = quantity.stage != "profile" and not single(table.rows, quantity)
    cells = []
    for m in measured:
        words = [MISSING]
        if m.value:
            own = _own(m.value, shown, decimals)
            words = [_number(m.value, shown, own), mark(m.method), _lone(m.value) if marked else ""]
        cells.append(" ".join(filter(None, words)))
    return tuple(cells)


def _differences(table: Table, quantity: Quantity, shown: Scale, measured: list[Measured]) -> tuple[str, ...]:
    decimals = _decimals([m.difference for m in measured], shown, 3)
    most = finest(table, quantity)
    alone = single(table.rows, quantity)
    cells = []
    for row, m in zip(table.rows, measured, strict=True):
        if m.difference is None:
            cells.append("" if row.role == "baseline" else MISSING)
            continue
        # A small difference in quality is noise; in cost it may be all that a fast arm takes.
        own = decimals if quantity.stage == "evaluate" else _own(m.difference, shown, decimals)
        words = [_number(m.difference, shown, int(min(own, most)), signed=True), mark(m.difference_method)]
        if m.value and m.difference.n < m.value.n:
            words.append(f"(n={m.difference.n})")  # the reference lacks some of this arm's seeds
        elif not alone:
            words.append(_lone(m.difference))
        if ratio_beside(quantity) not in table.quantities:  # else the ratio is what was judged
            words.append(verdict_sign(row, quantity))
        cells.append(" ".join(filter(None, words)))
    return tuple(cells)


def _ratios(table: Table, quantity: Quantity, measured: list[Measured]) -> tuple[str, ...]:
    cells = []
    for row, m in zip(table.rows, measured, strict=True):
        if m.value is None:
            cells.append("" if row.role == "baseline" else MISSING)
            continue
        half = spread(m.value)
        text = with_interval(m.value.mean, half) if half else factor(m.value.mean)
        cells.append(" ".join(filter(None, (text, verdict_sign(row, quantity), m.sign))))
    return tuple(cells)


def _number(estimate: Estimate, shown: Scale, decimals: int, *, signed: bool = False) -> str:
    mean, half = estimate.mean * shown.factor, spread(estimate) * shown.factor
    if half:
        return with_interval(mean, half, signed=signed)
    if signed:  # a tiny difference may be rounding alone
        return number(mean, decimals, signed=True)
    if 0 < abs(mean) < _TINY:
        return power_of_ten(mean)
    return number(mean, decimals if mean else 0)  # a true zero has no digits, lest it read as a rounded value


def _decimals(estimates: Sequence[Estimate | None], shown: Scale, digits: int) -> int:
    """Decimals of the column's values that have no interval: never more than its intervals support."""
    known = [estimate for estimate in estimates if estimate]
    decimals = significant((e.mean * shown.factor for e in known if not spread(e)), digits)
    supported = [interval_decimals(spread(e) * shown.factor) for e in known if spread(e)]
    return min(decimals, max(supported, default=decimals))


def _own(estimate: Estimate, shown: Scale, decimals: int) -> int:
    """The column's decimals; more where a value far below the largest would show less than two digits of its own."""
    return max(decimals, significant([estimate.mean * shown.factor], 2))


def _with_interval(estimate: Estimate, shown: Scale) -> int:
    """Decimals of a value beside its interval."""
    mean, half = estimate.mean * shown.factor, spread(estimate) * shown.factor
    return max(interval_decimals(size) for size in (half, abs(mean)) if size)


def _lone(estimate: Estimate) -> str:
    return "(n=1)" if estimate.n == 1 else ""
