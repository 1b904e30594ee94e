"""Records to tables: the numbers of every arm, and the formats that people and programs read them in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from cnnbench import aggregate, effects, table_data, table_formats, table_latex, table_parquet
from cnnbench.columns import arms_sheet
from cnnbench.errors import UsageError
from cnnbench.footnotes import footnotes
from cnnbench.frame import PENDING, TrialSet, by_dataset
from cnnbench.judged import exponential
from cnnbench.own_intervals import of_measuring, over_sessions
from cnnbench.quantities import Quantity, is_ratio, quantities, ratio_beside, ratio_key
from cnnbench.ratios import FEWEST_SEEDS, NotFaster, batch_sizes, not_faster, over_seeds
from cnnbench.registry import nearest
from cnnbench.series import blocks, recorded, series
from cnnbench.stats.intervals import Estimate, mean_interval, paired_difference
from cnnbench.verdicts import Verdicts, as_judged, kind_of, verdicts

if TYPE_CHECKING:
    from pathlib import Path

    from cnnbench.sheets import Sheet
    from cnnbench.stats.verdicts import Judgement


@dataclass(frozen=True)
class Measured:
    """One quantity of one arm, in the recorded unit.

    A latency's ratio to the reference's is a quantity too; its value is the one that is judged, or, from one or
    two seeds, what ``ratios.over_seeds`` makes of it.

    Attributes:
        value: over the seeds that are ok; None where there is none. From one or two seeds the interval of what is
            sampled many times is that of measuring alone, see ``own_intervals``.
        difference: from the reference, over the seeds that both have; None for the baseline itself and for ratios.
        method: how it was obtained, where the records say: ``measured``, ``estimated``, ``nominal`` ...
        difference_method: how the difference was obtained: an estimate on either side makes it one.
        sign: beside a ratio: ``‡`` for fewer multiply-adds and not faster.
        judgement: what may be concluded of the difference, see ``verdicts``; None where nothing is. A latency's stands
            at its ratio too; the difference in it is one of logarithms.
        strong: the best value of its column, or not to be told from the best.
    """

    value: Estimate | None
    difference: Estimate | None
    method: str
    difference_method: str = ""
    sign: str = ""
    judgement: Judgement | None = None
    strong: bool = False


@dataclass(frozen=True)
class Row:
    """One arm.

    Attributes:
        arm: its name.
        role: ``baseline``, ``arm`` or ``placebo``.
        changes: what it changes of the baseline, as text.
        reference: the arm that it is compared with; None for the baseline.
        statuses: number of trials by status, those without a record as ``pending``.
        measured: by quantity key.
        not_faster: set where its multiply-adds are fewer than the reference's and its latency is not lower.
    """

    arm: str
    role: str
    changes: str
    reference: str | None
    statuses: Mapping[str, int]
    measured: Mapping[str, Measured] = field(default_factory=dict)
    not_faster: NotFaster | None = None

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
        dataset: label of the dataset that it is of, where the run has several; else empty.
        margins: by quantity key, the difference that would not matter, where one is judged by; in the recorded unit, of
            times relative to the reference's, see ``verdicts``.
    """

    name: str
    question: str
    quantities: tuple[Quantity, ...]
    primary: str
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    dataset: str = ""
    margins: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All that is to be read of a run, before any format.

    Attributes:
        tables: one for each dataset of the run, usually one.
        sheets: for people, in reading order: of each table its own (key ``table``, those after the first ``table-2``,
            ``table-3`` ...), each followed by the effects, interactions or steps of its design; over several datasets
            the aggregate at the end.
    """

    tables: tuple[Table, ...]
    sheets: tuple[Sheet, ...]


def make_report(records: Sequence[Mapping[str, Any]], source: Path | None = None) -> Report:
    """The tables and sheets of the latest run among the records.

    Args:
        records: in the order of the file.
        source: the file or folder that they came from, for the footnotes.

    Raises:
        UsageError: there are no records.
    """
    found = by_dataset(records)
    tables = {label: table_of(trials, label if len(found) > 1 else "", source) for label, trials in found.items()}
    sheets: list[Sheet] = []
    for number, (label, table) in enumerate(tables.items(), 1):
        own = arms_sheet(table, number)
        sheets.append(own if number == 1 else replace(own, notes=_beside(sheets[0], own.notes)))
        for sheet in effects.sheets(found[label], table.quantities):
            key = sheet.key if number == 1 else f"{sheet.key}-{number}"
            title = f"{sheet.title}: {table.dataset}" if table.dataset else sheet.title
            sheets.append(replace(sheet, key=key, title=title))
    if len(found) > 1 and (together := aggregate.sheet(found)) is not None:
        sheets.append(together)
    return Report(tuple(tables.values()), tuple(sheets))


def _beside(first: Sheet, notes: Sequence[str]) -> tuple[str, ...]:
    """The notes of a later dataset's sheet: those that the first one's does not have."""
    new = [note for note in notes if note not in first.notes]
    return (*new, f"Signs, tests and conditions: as under {first.title}.") if len(new) < len(notes) else tuple(new)


def make_table(records: Sequence[Mapping[str, Any]], source: Path | None = None) -> Table:
    """The table of the latest run among the records; of several datasets, of the first. Else as ``make_report``."""
    found = by_dataset(records)
    label, trials = next(iter(found.items()))
    return table_of(trials, label if len(found) > 1 else "", source)


def table_of(trials: TrialSet, dataset: str = "", source: Path | None = None) -> Table:
    """The table of some trials.

    Args:
        trials: of one dataset.
        dataset: its label, where the run has several.
        source: the file or folder that the records came from, for the footnotes.
    """
    primary, columns = _columns(trials)
    suite = trials.heading.get("suite") or {}
    found = verdicts(trials, columns)
    methods = _Methods(trials)
    table = Table(
        name=str(suite.get("name") or "results"),
        question=str(suite.get("question") or ""),
        quantities=columns,
        primary=primary,
        seeds=trials.seeds,
        rows=tuple(_row(trials, arm, columns, found, methods) for arm in trials.arms),
        notes=(),
        dataset=dataset,
        margins=found.margins,
    )
    return replace(table, notes=tuple(footnotes(trials, table, source)))


def _row(trials: TrialSet, arm: str, columns: Sequence[Quantity], found: Verdicts, methods: _Methods) -> Row:
    reference = trials.references[arm]
    planned = [record for _, record in trials.planned_of(arm)]
    statuses = Counter(PENDING if record is None else record["status"] for record in planned)
    changes = max((text for text in {record.get("changes") for record in planned if record} if text), default="")
    ok = trials.ok(arm)
    ratios = {size: ratio for size in batch_sizes(recorded(trials, arm)) if (ratio := _ratio(ok, size, arm, found))}
    slow = None
    if reference is not None:
        slow = not_faster(series(trials, arm, "flops"), series(trials, reference, "flops"), ratios)
    measured: dict[str, Measured] = {}
    for quantity in columns:
        key = quantity.key
        judgement = found.judgements.get(key, {}).get(arm)
        if is_ratio(quantity):
            size = next((size for size in ratios if ratio_key(size) == key), None)
            value = None if size is None else ratios[size]
            sign = "‡" if slow and size in slow.ratios else ""
            measured[key] = Measured(value, None, "measured" if value else "", sign=sign, judgement=judgement)
        else:
            plain = replace(_measured(trials, arm, reference, key, methods), judgement=judgement)
            estimated = kind_of(quantity) == "energy" and plain.difference_method != "measured"
            if judgement and as_judged(quantity, judgement) and not estimated:
                plain = replace(plain, difference=judgement.difference)
            measured[key] = replace(plain, strong=arm in found.best.get(key, ()))
    return Row(arm, trials.roles[arm], changes, reference, statuses, measured, slow)


def _ratio(ok: Sequence[Mapping[str, Any]], size: int, arm: str, found: Verdicts) -> Estimate | None:
    """An arm's ratio: the one that is judged, with the interval that was asked for, where seeds are enough for one."""
    judgement = found.judgements.get(ratio_key(size), {}).get(arm)
    if judgement and judgement.difference and judgement.n >= FEWEST_SEEDS:
        return exponential(judgement.difference)
    return over_seeds(ok, size)


def _measured(trials: TrialSet, arm: str, reference: str | None, key: str, methods: _Methods) -> Measured:
    own = series(trials, arm, key)
    value, difference, method = mean_interval(own), None, methods.of(arm, key)
    if value is not None and of_measuring(key, value):
        value = over_sessions(trials.ok(arm), key)
    if reference is not None:
        difference = paired_difference(own, series(trials, reference, key))
    other = methods.of(reference, key) if reference is not None and difference else ""
    return Measured(value, difference, method, _combined(method, other) if difference else "")


class _Methods:
    """How quantities were obtained; asked for once by an arm and once by each that is compared with it."""

    def __init__(self, trials: TrialSet) -> None:
        self._trials = trials
        self._known: dict[tuple[str, str], str] = {}

    def of(self, arm: str, key: str) -> str:
        """An arm's way of one quantity; all ways where its seeds differ.

        Energy whose record does not say is ``unknown``: without any mark it would pass for a measurement.
        """
        if (arm, key) not in self._known:
            silent = "unknown" if key.startswith(_NEVER_UNMARKED) else ""
            ways = {str(b.methods.get(key) or silent) for b in blocks(self._trials, arm) if b.has(key)}
            self._known[arm, key] = ", ".join(sorted(ways - {""}))
        return self._known[arm, key]


def _combined(own: str, other: str) -> str:
    """Method of a difference: what either side has beside ``measured``."""
    ways = {way for text in (own, other) for way in text.split(", ") if way}
    return ", ".join(sorted(ways - {"measured"} or ways))


_NEVER_UNMARKED = ("energy_", "co2_")


def _columns(trials: TrialSet) -> tuple[str, tuple[Quantity, ...]]:
    """The primary quantity's key, and the quantities to show; an unlisted primary metric leads them.

    Beside each latency stands its ratio to the reference's, if any record has one.
    """
    measure = trials.heading.get("measure") or {}
    there = {key for arm in trials.arms for key in recorded(trials, arm)}
    primary = str(measure.get("primary") or "accuracy")
    names = list(measure.get("metrics") or [primary])
    sizes = (measure.get("latency") or {}).get("batch_sizes") or [1]
    if primary not in names:
        names.insert(0, primary)
    found = {name: quantities([name], sizes) for name in names}
    columns: dict[Quantity, None] = {}
    for quantity in (quantity for name in names for quantity in found[name]):
        ratio = ratio_beside(quantity)
        shown = [quantity] if ratio is None or ratio.key not in there else [quantity, ratio]
        columns |= dict.fromkeys(shown)
    return found[primary][0].key, tuple(columns)


Format = Callable[[Report, int | None], str | bytes]

FORMATS: Final[Mapping[str, Format]] = {
    "terminal": table_formats.terminal,
    "markdown": table_formats.markdown,
    "latex": table_latex.latex,
    "csv": table_data.csv_text,
    "json": table_data.json_text,
    "parquet": table_parquet.parquet,
}
"""What ``render`` can produce: functions of a report and of the width to fit, which only a terminal has."""


def render(
    records: Sequence[Mapping[str, Any]],
    format: str,  # noqa: A002 - the command's own word
    width: int | None = None,
    source: Path | None = None,
) -> str | bytes:
    """The report of the latest run among the records, as text without a final newline, or as bytes.

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
    return FORMATS[format](make_report(records, source), width)
