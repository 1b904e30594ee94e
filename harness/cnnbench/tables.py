"""Records to tables: the numbers of every arm, and the formats that people and programs read them in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cnnbench import table_formats
from cnnbench.errors import UsageError
from cnnbench.footnotes import footnotes
from cnnbench.frame import TrialSet, current, to_frame
from cnnbench.quantities import Quantity, quantities
from cnnbench.registry import nearest
from cnnbench.stats import Estimate, mean_interval, paired_difference

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


@dataclass(frozen=True)
class Measured:
    """One quantity of one arm, in the recorded unit.

    Attributes:
        value: over the seeds that are ok; None where there is none.
        difference: from the baseline, over the seeds that both have; None for the baseline itself.
        method: how it was obtained, where the records say: ``measured``, ``estimated``, ``nominal`` ...
    """

    value: Estimate | None
    difference: Estimate | None
    method: str


@dataclass(frozen=True)
class Row:
    """One arm.

    Attributes:
        arm: its name.
        role: ``baseline``, ``arm`` or ``placebo``.
        changes: what it changes of the baseline, as text.
        statuses: number of trials by status, those without a record as ``pending``.
        measured: by quantity key.
    """

    arm: str
    role: str
    changes: str
    statuses: Mapping[str, int]
    measured: Mapping[str, Measured]

    @property
    def ok(self) -> int:
        """Trials that are ok."""
        return self.statuses.get("ok", 0)

    @property
    def planned(self) -> int:
        """All trials of the arm."""
        return sum(self.statuses.values())


@dataclass(frozen=True)
class Table:
    """All that a table says, before any format.

    Attributes:
        name: the suite's.
        question: that it answers.
        quantities: columns in order.
        primary: key of the quantity that decides.
        seeds: planned ones.
        rows: arms in the planned order, the baseline first.
        notes: footnotes, a sentence or a list each.
    """

    name: str
    question: str
    quantities: tuple[Quantity, ...]
    primary: str
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def make_table(records: Sequence[Mapping[str, Any]], source: Path | None = None) -> Table:
    """The table of the latest run among the records.

    Args:
        records: in the order of the file.
        source: the file or folder that they came from, for the footnotes.

    Raises:
        UsageError: there are no records.
    """
    trials = current(records)
    frame = to_frame(trials)
    primary, columns = _columns(trials.heading.get("measure") or {})
    by_arm = {str(arm): rows for arm, rows in frame.groupby("arm", sort=False)}
    suite = trials.heading.get("suite") or {}
    rows = tuple(_row(trials, arm, by_arm, columns) for arm in trials.arms)
    return Table(
        name=str(suite.get("name") or "results"),
        question=str(suite.get("question") or ""),
        quantities=columns,
        primary=primary,
        seeds=trials.seeds,
        rows=rows,
        notes=tuple(footnotes(trials, rows, columns, source)),
    )


def _row(trials: TrialSet, arm: str, by_arm: Mapping[str, pd.DataFrame], columns: Sequence[Quantity]) -> Row:
    mine = by_arm[arm]
    base = by_arm[trials.baseline] if trials.baseline not in {None, arm} else None
    measured: dict[str, Measured] = {}
    for key in (column.key for column in columns):
        value = difference = None
        if key in mine:
            value = mean_interval(mine[key].to_numpy())
            difference = None if base is None else paired_difference(mine[key].to_numpy(), base[key].to_numpy())
        measured[key] = Measured(value, difference, _method(trials, arm, key))
    statuses = {str(status): int(count) for status, count in mine["status"].value_counts().items()}
    return Row(arm, trials.roles[arm], max(mine["changes"]), statuses, measured)


def _method(trials: TrialSet, arm: str, key: str) -> str:
    """How an arm's quantity was obtained; all ways where its seeds differ."""
    ok = (record for record in trials.of(arm) if record["status"] == "ok")
    ways = {str((record.get("methods") or {}).get(key) or "") for record in ok}
    return ", ".join(sorted(ways - {""}))


def _columns(measure: Mapping[str, Any]) -> tuple[str, tuple[Quantity, ...]]:
    """The primary quantity's key, and the quantities to show; an unlisted primary metric leads them."""
    primary = str(measure.get("primary") or "accuracy")
    names = list(measure.get("metrics") or [primary])
    batch_sizes = (measure.get("latency") or {}).get("batch_sizes") or [1]
    if primary not in names:
        names.insert(0, primary)
    found = {name: quantities([name], batch_sizes) for name in names}
    columns = dict.fromkeys(quantity for name in names for quantity in found[name])
    return found[primary][0].key, tuple(columns)


Format = Callable[[Table, int | None], str]

FORMATS: Final[Mapping[str, Format]] = {
    "terminal": table_formats.terminal,
    "markdown": table_formats.markdown,
    "csv": table_formats.csv_text,
    "json": table_formats.json_text,
}
"""What ``render`` can produce: functions of a table and of the width to fit, which only a terminal has."""


def render(
    records: Sequence[Mapping[str, Any]],
    format: str,  # noqa: A002 - the command's own word
    width: int | None = None,
    source: Path | None = None,
) -> str:
    """The table of the latest run among the records, as text without a final newline.

    Args:
        records: in the order of the file.
        format: one of ``FORMATS``.
        width: cells that a line may have in ``terminal``; None for the terminal's own.
        source: the file or folder that the records came from, for the footnotes.

    Raises:
        UsageError: unknown format, or no records.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}: {nearest(format, FORMATS)}")
    return FORMATS[format](make_table(records, source), width)
