"""One metric of one suite over the revisions at which it ran: points for a table, a CSV file or a plot.

A point holds what one revision measured: the last record of each seed. Machines stand apart where the metric is the
machine's as well, and so do estimates from measurements, and an arm from itself before its settings changed.
"""

from __future__ import annotations

import csv
import heapq
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnbench.columns import spread
from cnnbench.errors import UsageError
from cnnbench.numerals import number, scale, significant, with_interval
from cnnbench.own_intervals import has_own, over_sessions
from cnnbench.pairs import Pair
from cnnbench.quantities import quantities
from cnnbench.ratios import FEWEST_SEEDS
from cnnbench.registry import nearest
from cnnbench.stats.intervals import mean_interval
from cnnbench.text import csv_cell, printable
from cnnbench.tolerances import OF_THE_MACHINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cnnbench.pairs import Record
    from cnnbench.quantities import Quantity
    from cnnbench.stats.intervals import Estimate


@dataclass(frozen=True)
class Moment:
    """A revision as it was measured.

    Attributes:
        revision: short hash, as records tell it; empty where the suite lay in no repository.
        started: when the first of its counted records began, ISO 8601 in UTC.
    """

    revision: str
    started: str

    @property
    def label(self) -> str:
        """For people: the revision and the day."""
        return " ".join(filter(None, [self.revision, self.started[:10]]))


@dataclass(frozen=True)
class Series:
    """One line of a plot.

    Attributes:
        arm: its name, with a number where its settings changed on the way.
        machine: where it ran; empty where the metric does not depend on it, or there is one machine alone.
        method: ``estimated`` and the like; empty where nothing is said.
        quantity: what is shown.
        points: values by moment, in time order.
    """

    arm: str
    machine: str
    method: str
    quantity: Quantity
    points: Mapping[Moment, Estimate]

    @property
    def mark(self) -> str:
        """What is said beside values that were not measured; an estimate never looks like a measurement."""
        return "est." if "estimated" in self.method else self.method.replace("measured", "")

    @property
    def label(self) -> str:
        """For people."""
        return printable(", ".join(filter(None, [self.arm, self.machine, self.mark])))


@dataclass(frozen=True)
class History:
    """All series of one metric.

    Attributes:
        suite: its name.
        moments: in the order in which they ran.
        series: arm by arm.
        notes: what is to be said beside it.
    """

    suite: str
    moments: tuple[Moment, ...]
    series: tuple[Series, ...]
    notes: tuple[str, ...]


def in_order(files: Iterable[Iterable[Record]]) -> list[Record]:
    """Records of several files in the order of time.

    In a file it is the order of its lines, even where a clock was set back; between files, when runs began.

    Args:
        files: the records of each, in the order of its lines.
    """

    def timed(file: Iterable[Record]) -> Iterator[tuple[str, Record]]:
        latest = ""
        for record in file:
            latest = max(latest, str(record.get("started") or ""))
            yield latest, record

    return [record for _, record in heapq.merge(*map(timed, files), key=lambda one: one[0])]


def history(records: Sequence[Record], metric: str | None = None, arms: Sequence[str] = ()) -> History:
    """The history of the suite that ran last.

    Args:
        records: every record of every run, replaced ones too, in the order of time; see ``in_order``.
        metric: its name in suites; None for the suite's primary one.
        arms: those to show; empty for all.

    Raises:
        UsageError: no such metric or arm in the records; names the nearest.
    """
    suite = _suite(records[-1])
    mine = [record for record in records if _suite(record) == suite and record["status"] == "ok"]
    measure = records[-1].get("measure") or {}
    metric = metric or str(measure.get("primary") or "accuracy")
    known = list(dict.fromkeys(str(record["arm"]) for record in mine))
    for arm in arms:
        if arm not in known:
            raise UsageError(f"--arm: no arm {arm!r} in these records: {nearest(arm, known)}")
    columns = _columns(mine, metric)
    moments = _moments(mine)
    series = [
        one
        for arm in known
        if not arms or arm in arms
        for quantity in columns
        for one in _series(arm, metric, quantity, [r for r in mine if r["arm"] == arm], moments)
    ]
    machines = {one.machine for one in series}
    if len(machines) == 1:
        series = [Series(one.arm, "", one.method, one.quantity, one.points) for one in series]
    shown = {moment for one in series for moment in one.points}
    notes = _notes(machines, series, len({_suite(record) for record in records}) - 1)
    return History(suite, tuple(m for m in dict.fromkeys(moments.values()) if m in shown), tuple(series), tuple(notes))


def _suite(record: Record) -> str:
    return str((record.get("suite") or {}).get("name") or "")


def _columns(mine: Sequence[Record], metric: str) -> list[Quantity]:
    """The metric's quantities that any record has, one for each batch size that was measured."""
    asked = [(record.get("measure") or {}) for record in mine]
    sizes = dict.fromkeys(n for a in asked for n in (a.get("latency") or {}).get("batch_sizes") or [1])
    recorded = {key for record in mine for key in record.get("metrics") or {}}
    found = [quantity for quantity in quantities([metric], list(sizes)) if quantity.key in recorded]
    if not found:
        names = dict.fromkeys(name for a in asked for name in [a.get("primary"), *(a.get("metrics") or ())] if name)
        have = [name for name in names if any(q.key in recorded for q in quantities([name], list(sizes)))]
        raise UsageError(f"--metric: these records have no {metric!r}: {nearest(metric, have)}")
    return found


def _moments(mine: Sequence[Record]) -> dict[tuple[str, str], Moment]:
    """By identity of a run's code, in time order."""
    found: dict[tuple[str, str], Moment] = {}
    for record in mine:
        found.setdefault(_code(record), Moment(_code(record)[0], str(record.get("started") or "")))
    return found


def _code(record: Record) -> tuple[str, str]:
    """What stands for a record's code: the revision if that is all there is to it, else the run as well."""
    revision = str((record.get("environment") or {}).get("revision") or "")
    whole = revision and " " not in revision  # "... with uncommitted changes" may be any code
    return revision, "" if whole else str(record.get("started") or "")


def _series(
    arm: str, metric: str, quantity: Quantity, records: Sequence[Record], moments: Mapping[tuple[str, str], Moment]
) -> Iterator[Series]:
    """The lines of one arm: one for each machine and method, broken where its settings change."""
    lines: dict[tuple[str, str, int], dict[Moment, dict[int, Record]]] = {}
    generation, last = 1, None
    for record in records:
        if not isinstance((record.get("metrics") or {}).get(quantity.key), int | float):
            continue
        if last is not None and Pair(arm, 0, last, record).another_experiment:
            generation += 1
        last = record
        method = str((record.get("methods") or {}).get(quantity.key) or "")
        line = (_machine(record) if metric in OF_THE_MACHINE else "", method, generation)
        lines.setdefault(line, {}).setdefault(moments[_code(record)], {})[record["seed"]] = record
    for (machine, method, settings), by_moment in lines.items():
        points = {moment: _value(list(seeds.values()), quantity) for moment, seeds in by_moment.items()}
        name = arm if settings == 1 else f"{arm} (settings {settings})"
        yield Series(name, machine, method, quantity, points)


def _machine(record: Record) -> str:
    """Processor or GPU, and threads where the record tells them."""
    environment = record.get("environment") or {}
    samplings = (record.get("details") or {}).get("latency") or {}
    threads = next((one.get("threads") for one in samplings.values()), None)
    parts = dict.fromkeys(str(environment[name]) for name in ("device", "cpu") if environment.get(name))
    return ", ".join([*parts, *([f"{threads} threads"] if threads else [])])


def _value(records: Sequence[Record], quantity: Quantity) -> Estimate:
    """Mean over seeds with its t interval; that of the sessions themselves where there are too few seeds for one."""
    if len(records) < FEWEST_SEEDS and has_own(quantity.key):
        found = over_sessions(records, quantity.key)
    else:
        found = mean_interval([float(record["metrics"][quantity.key]) for record in records])
    assert found is not None
    return found


def _notes(machines: set[str], series: Sequence[Series], other_suites: int) -> Iterator[str]:
    if len(machines) > 1:
        yield "Machines stand apart: their values do not compare."
    elif machines - {""}:
        yield f"Machine: {printable(next(iter(machines)))}."
    if any("estimated" in one.method for one in series):
        yield "est.: estimated, not measured; it carries no information beyond time and load."
    if any("(settings " in one.arm for one in series):
        yield "An arm whose settings changed begins a new line: it is another experiment."
    values = [
        tuple(estimate.mean for estimate in one.points.values()) for one in series if one.quantity.stage == "latency"
    ]
    if any(len(set(means)) < len(means) for means in values):
        yield "Some points repeat an earlier measurement from the cache: run with --fresh to take each anew."
    if other_suites:
        yield f"Left out: records of {other_suites} other {'suite' if other_suites == 1 else 'suites'}."


def table(found: History) -> str:
    """For terminals: each line's points in time order."""
    text = [printable(found.suite)]
    for one in found.series:
        shown = scale(one.quantity, (e.mean for e in one.points.values()))
        head = f"{one.quantity.label}" + (f" [{shown.unit}]" if shown.unit else "")
        text += ["", f"{one.label}: {head}"]
        width = max(len(moment.label) for moment in one.points)
        decimals = significant((e.mean * shown.factor for e in one.points.values()), 4)
        for moment, estimate in one.points.items():
            half = spread(estimate) * shown.factor
            mean = estimate.mean * shown.factor
            value = with_interval(mean, half) if half else number(mean, decimals)
            text.append(f"  {printable(moment.label):{width}}  {value}  (n={estimate.n})")
    return "\n".join([*text, "", *found.notes]).rstrip()


def csv_text(found: History) -> str:
    """One line for each point, in the recorded unit (the quantity's key names it), with all digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["suite", "arm", "machine", "method", "quantity", "revision", "started", "mean", "low", "high", "n"]
    )
    for one in found.series:
        head = list(map(csv_cell, [found.suite, one.arm, one.machine, one.method, one.quantity.key]))
        for moment, e in one.points.items():
            writer.writerow([*head, csv_cell(moment.revision), csv_cell(moment.started), e.mean, e.low, e.high, e.n])
    return out.getvalue().removesuffix("\n")
