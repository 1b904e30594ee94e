"""What stands under a table: what its signs mean, how it was obtained, and which trials are missing from it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from cnnbench.columns import compared, mark, single, spread
from cnnbench.conditions import condition_notes, ends, origin_notes
from cnnbench.frame import PENDING
from cnnbench.notices import co2_notes, energy_notes, latency_notes, training_notes
from cnnbench.own_intervals import has_own, of_measuring
from cnnbench.quantities import is_ratio
from cnnbench.text import listed, named, printable
from cnnbench.verdict_notes import placebo_notes, verdict_notes
from cnnbench.verdicts import T_INTERVAL, as_judged, interval_of, looks_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cnnbench.frame import TrialSet
    from cnnbench.quantities import Quantity
    from cnnbench.tables import Row, Table

_LONGEST_REASON = 200
_MOST_REASONS = 20


def footnotes(trials: TrialSet, table: Table, source: Path | None) -> Iterator[str]:
    """The notes in order: signs, missing trials, conditions, origin.

    Args:
        trials: what the table shows.
        table: without notes yet.
        source: the file or folder that the records came from.
    """
    rows, columns = table.rows, table.quantities
    yield from _intervals(trials, table)
    yield from _references(trials, table)
    yield from verdict_notes(trials, table)
    yield from placebo_notes(table)
    yield from _methods(rows)
    yield from training_notes(trials, columns)
    yield from co2_notes(trials, columns)
    yield from latency_notes(trials, rows, columns)
    yield from energy_notes(trials, columns)
    yield from _missing(trials)
    yield from _remarks(trials)
    yield from condition_notes(trials, columns)
    yield from origin_notes(trials, source)


def _intervals(trials: TrialSet, table: Table) -> Iterator[str]:
    """What ± is, by column where that differs; ratios have a note of their own."""
    plain = [q for q in table.quantities if not is_ratio(q)]
    over_seeds = False
    agreeing: dict[str, None] = {}
    for q in plain:
        values = [
            value for row in table.rows if (value := row.measured[q.key].value) and not of_measuring(q.key, value)
        ]
        over_seeds = over_seeds or any(map(spread, values))
        differences = [row.measured[q.key].difference for row in table.rows] if compared(table, q) else []
        if any(value.n > 1 and not spread(value) for value in values):
            agreeing[q.label] = None
        if any(d and d.n > 1 and not spread(d) for d in differences):
            agreeing[f"Δ {q.label}"] = None
    if over_seeds:
        same = f"; in {listed(agreeing)}, where there is none, all seeds agree" if agreeing else ""
        yield f"±: half the 95 % t interval of the mean over seeds{same}."
    yield from _own_intervals(table)
    once = [q.label for q in plain if single(table.rows, q) and q.stage != "profile" and not _any_spread(table, q)]
    if len(trials.seeds) == 1:
        yield "One seed: there are no intervals over seeds, and a difference may be chance alone."
    elif once:
        yield f"From one seed, so without interval: {listed(once)}."


def _own_intervals(table: Table) -> Iterator[str]:
    """Where ± is that of measuring alone; the arms too where others have one over seeds."""
    labels: dict[str, None] = {}
    arms: dict[str, None] = {}
    two = others = False
    for q in (q for q in table.quantities if has_own(q.key)):
        for row in table.rows:
            value = row.measured[q.key].value
            if value is None:
                continue
            if not of_measuring(q.key, value):
                others = True
            elif spread(value):
                labels[q.label] = arms[printable(row.arm)] = None
                two = two or value.n > 1
    if labels:
        whose = f" ({named(arms)})" if others else ""
        both = ", the span of both of two" if two else ""
        yield (
            f"± from one or two seeds{whose}, in {listed(labels)}: the interval of the samples of a session{both} (of "
            "energy and CO2: the range of its windows), which holds the noise of measuring alone."
        )


def _any_spread(table: Table, quantity: Quantity) -> bool:
    return any(value and spread(value) for value in (row.measured[quantity.key].value for row in table.rows))


def _references(trials: TrialSet, table: Table) -> Iterator[str]:
    """What differences are from, where it is not the baseline, and where it has nothing to compare with."""
    by_name = {row.arm: row for row in table.rows}
    compared_with: dict[str, list[str]] = defaultdict(list)
    for row in table.rows:
        if row.reference is not None:
            compared_with[row.reference].append(printable(row.arm))
    if trials.baseline is None:
        yield f"No baseline in this run: there are no differences{' from it' if compared_with else ''}."
    there = {name: arms for name, arms in compared_with.items() if name in by_name and by_name[name].ok}
    if there:
        whose = printable(next(iter(there))) if list(there) == [trials.baseline] else "an arm's reference"
        columns = [q.key for q in table.quantities if compared(table, q)]
        differences = [row.measured[key].difference for row in table.rows for key in columns]
        interval = f", ± its 95 % {interval_of(trials)}, which is not corrected for the number of arms"
        shown = any(difference and spread(difference) for difference in differences)
        yield f"Δ: difference from {whose} in the same seeds{interval if shown else ''}."
        yield from _not_judged(trials, table)
    others = [f"{named(arms)} with {printable(name)}" for name, arms in there.items() if name != trials.baseline]
    if others:
        rest = f"; all others with {printable(trials.baseline)}" if trials.baseline and trials.baseline in there else ""
        yield f"Compared, in Δ and ratio: {'; '.join(others)}{rest}."
    for name, arms in compared_with.items():
        whom = "" if name == trials.baseline and list(compared_with) == [name] else f" for {named(arms)}"
        if name not in by_name:
            yield f"{printable(name)} is not in this run: there are no differences{whom}."
        elif name not in there:
            yield f"No trial of {printable(name)} is ok: there are no differences{whom}."


def _not_judged(trials: TrialSet, table: Table) -> Iterator[str]:
    """Differences whose interval is a paired t interval where others have another."""
    if interval_of(trials) == T_INTERVAL:
        return
    labels = [
        f"Δ {q.label}"
        for q in table.quantities
        if not is_ratio(q)
        and compared(table, q)
        and any(m.difference and not as_judged(q, m.judgement) for m in (row.measured[q.key] for row in table.rows))
    ]
    if labels:
        looks = " of all seeds, which does not allow for looks" if looks_of(trials) else ""
        yield f"In {listed(labels)}, by which nothing is judged, ± is the 95 % {T_INTERVAL}{looks}."


def _methods(rows: Sequence[Row]) -> Iterator[str]:
    shown = [m for row in rows for m in row.measured.values() if m.value]
    marks = {mark(way) for m in shown for way in (m.method, m.difference_method)}
    if "est." in marks:
        yield (
            "est.: estimated, not measured: an assumed power × time (of a CPU whose load codecarbon reads, × load as "
            "well); it carries no information beyond time and load."
        )
    if any("shared" in text for text in marks):
        yield (
            "shared: a counter of the whole machine while other trainings ran beside, whose energy it holds too; "
            "--workers 1 --fresh takes it alone."
        )
    if any("nominal" in text for text in marks):
        yield "nominal: the file with the format's bits; it has no packed storage here."
    if any("unknown" in text for text in marks):
        yield "unknown: the source does not say whether it measured or estimated."


def _missing(trials: TrialSet) -> Iterator[str]:
    """Every trial that is not ok, with its reason; arms and reasons together where they agree."""
    reasons: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for arm, seed, record in trials.planned():
        status = record["status"] if record else PENDING
        if status != "ok":
            reason = _short(record.get("reason") or "") if record else "has not run yet"
            reasons[status, reason][arm].append(seed)
    for (status, reason), arms in list(reasons.items())[:_MOST_REASONS]:
        whom = [
            printable(arm) if len(seeds) == len(trials.seeds_of(arm)) else f"{printable(arm)} ({_seeds(seeds)})"
            for arm, seeds in arms.items()
        ]
        yield f"{status}: {named(whom)}" + (f": {reason}" if reason else "")
    if len(reasons) > _MOST_REASONS:
        yield f"{len(reasons) - _MOST_REASONS} more reasons stand in the records."


def _remarks(trials: TrialSet) -> Iterator[str]:
    """What trials that are ok have to say, first of all why a value is absent; arms together where they agree."""
    arms: dict[str, dict[str, None]] = defaultdict(dict)
    for arm in trials.arms:
        for record in trials.ok(arm):
            for note in (record.get("details") or {}).get("notes") or ():
                arms[_short(note)][printable(arm)] = None
    yield from (f"{named(names)}: {note}" for note, names in list(arms.items())[:_MOST_REASONS])
    if len(arms) > _MOST_REASONS:
        yield f"{len(arms) - _MOST_REASONS} more remarks stand in the records."


def _short(text: object) -> str:
    line = printable(str(text))
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]} …"


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {ends(seeds)}"
