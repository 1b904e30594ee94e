"""The answer to a table's question, in words.

It says what the verdicts say and nothing more: an arm whose verdict is open is never called better, however high its
mean is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cnnbench.columns import spread
from cnnbench.numerals import factor, number, scale, significant, with_interval
from cnnbench.quantities import ratio_beside
from cnnbench.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnbench.quantities import Quantity
    from cnnbench.stats.intervals import Estimate
    from cnnbench.stats.verdicts import Judgement
    from cnnbench.tables import Row, Table

_MOST_NAMED = 6
_ORDER: Final = ("better", "worse", "equivalent", "unresolved", "silent", "missing")
"""Verdicts as the answer tells them, then arms without one, then arms without any trial that is ok."""
_COSTS: Final = ("size_bytes", "latency_b", "energy_inference")
"""Beginnings of keys; the first column of each counts."""


def answer(table: Table) -> str:
    """What the verdicts on the primary quantity say, in a sentence, and in a second one which arms also cost less.

    The placebo is the run's noise and no part of the answer.

    Args:
        table: with judgements.
    """
    pending = sum(row.statuses.get("pending", 0) for row in table.rows)
    planned = sum(row.planned for row in table.rows)
    unfinished = f"{pending} of {planned} trials have not run yet." if pending else ""
    return " ".join(filter(None, (*_sentences(table), unfinished)))


def primary_of(table: Table) -> Quantity:
    """The quantity that decides."""
    return next(quantity for quantity in table.quantities if quantity.key == table.primary)


def judged(row: Row, quantity: Quantity) -> Judgement | None:
    """The verdict on a quantity of an arm; that of a latency may stand beside its ratio."""
    beside = ratio_beside(quantity)
    ratio = row.measured.get(beside.key) if beside else None
    own = row.measured[quantity.key].judgement
    return own if own or ratio is None else ratio.judgement


def change(table: Table, row: Row, quantity: Quantity, *, signed: bool = True) -> str:
    """By how much an arm's quantity differs from its reference's, with interval: ``+0.8 ± 0.3 pp``, ``×1.12``.

    Args:
        table: that the arm stands in, for the unit of the column.
        row: the arm.
        quantity: one of the table's.
        signed: a difference with its sign.

    Returns:
        Empty where nothing is known.
    """
    ratio, difference = _ratio(row, quantity), row.measured[quantity.key].difference
    if ratio is not None:
        half = spread(ratio)
        return f"×{with_interval(ratio.mean, half) if half else factor(ratio.mean)}"
    if difference is None:
        return ""
    shown = scale(quantity, (value.mean for other in table.rows if (value := other.measured[quantity.key].value)))
    amount = _plain(difference, shown.factor, signed=True)
    unit = "pp" if shown.unit == "%" else shown.unit
    return " ".join(filter(None, (amount if signed else amount.lstrip("+−"), unit)))


def counted(seeds: int) -> str:
    """``1 seed``, ``10 seeds``."""
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def _sentences(table: Table) -> tuple[str, ...]:
    primary = primary_of(table)
    arms = [row for row in table.rows if row.role == "arm"]
    there = {row.arm for row in table.rows if row.ok}
    if not there:
        return ("No trial is ok, so there is nothing to answer with.",)
    if not arms:
        return (_alone(table, primary),)
    if not any(row.reference in there for row in arms if row.ok):
        return (_incomparable(arms),)
    if not any(judged(row, primary) for row in arms):
        return (f"There is no verdict on {primary.label}: the table has values and differences alone.",)
    said = _one(table, primary, arms[0]) if len(arms) == 1 else _many(table, primary, arms)
    return said, _savings(table, primary, arms)


def _many(table: Table, primary: Quantity, arms: Sequence[Row]) -> str:
    """``Of 9 arms, 2 raise accuracy (...), 1 lowers it (...), and 6 stay undecided with 10 seeds (...)``."""
    groups: dict[str, list[Row]] = {}
    for row in arms:
        groups.setdefault(_verdict(row, primary) or ("silent" if row.ok else "missing"), []).append(row)
    parts: list[str] = []
    for verdict in _ORDER:
        rows = groups.get(verdict, [])
        if rows:
            count = "all" if len(rows) == len(arms) else str(len(rows))
            parts.append(f"{count} {_group(table, primary, verdict, rows, named=bool(parts))}")
    return f"Of {len(arms)} arms, {_and(parts)}."


def _group(table: Table, primary: Quantity, verdict: str, rows: Sequence[Row], *, named: bool) -> str:
    """What the arms of one verdict do, from the verb on; ``named``: the quantity was named before."""
    plural = len(rows) > 1
    of = "" if named else f" in {primary.label}"
    if verdict in {"better", "worse"}:
        what = "it" if named else primary.label
        return f"{_verb(primary, verdict, plural=plural)} {what} ({_moved(table, rows)})"
    if verdict == "equivalent":
        within = _within(table, primary)
        return (
            f"{'make' if plural else 'makes'} no difference{of} that matters ({within and f'{within}: '}{_names(rows)})"
        )
    if verdict == "unresolved":
        return f"{'stay' if plural else 'stays'} undecided{of} {_seeds(primary, rows)} ({_names(rows)})"
    if verdict == "silent":
        return f"cannot be compared{of} ({_names(rows)})"
    return f"{'have' if plural else 'has'} no trial that is ok ({_names(rows)})"


def _one(table: Table, primary: Quantity, row: Row) -> str:
    verdict, name = _verdict(row, primary), _name(row)
    if verdict in {"better", "worse"}:
        return f"{name} {_verb(primary, verdict, plural=False)} {primary.label}{_by(table, row)}."
    if verdict == "equivalent":
        within = _within(table, primary)
        return f"{name} makes no difference in {primary.label} that matters{within and f' ({within})'}."
    seen = change(table, row, primary)
    return f"Whether {name} changes {primary.label} stays undecided {_seeds(primary, [row])}{seen and f' ({seen})'}."


def _alone(table: Table, primary: Quantity) -> str:
    row = next(row for row in table.rows if row.ok)
    value = row.measured[primary.key].value
    if value is None:
        return f"There is one arm, {_name(row)}, and nothing to compare it with."
    shown = scale(primary, [value.mean])
    amount = " ".join(filter(None, (_plain(value, shown.factor), shown.unit)))
    return f"There is nothing to compare with: {_name(row)} alone has {primary.label} {amount} over {counted(value.n)}."


def _incomparable(arms: Sequence[Row]) -> str:
    """Why no arm has a reference: there is none, or trials are missing on either side."""
    references = list(dict.fromkeys(printable(row.reference) for row in arms if row.reference))
    if not references:
        return "The run has no baseline, so no arm can be called better or worse."
    whom = _and(references) if any(row.ok for row in arms) else ("the arm" if len(arms) == 1 else "any arm")
    return f"No trial of {whom} is ok, so there is nothing to compare."


def _savings(table: Table, primary: Quantity, arms: Sequence[Row]) -> str:
    """Which of the arms that are not worse cost less, the largest saving first; empty for none.

    An arm counts where its primary verdict is better or equivalent and that of a cost is better. Which of two arms
    saves more has no verdict, so none is called the cheapest.
    """
    equals = [row for row in arms if _verdict(row, primary) in {"better", "equivalent"}]
    firsts = (next((q for q in table.quantities if q.key.startswith(start)), None) for start in _COSTS)
    costs = [quantity for quantity in firsts if quantity and quantity.key != primary.key]
    found: list[tuple[float, str]] = []
    for row in equals:
        shares = {q.label: share for q in costs if (share := _share(row, q, table)) is not None}
        if shares:
            told = ", ".join(f"{label} ×{factor(share)}" for label, share in shares.items())
            found.append((min(shares.values()), f"({told})" if len(equals) == 1 else f"{_name(row)} ({told})"))
    if not found:
        return ""
    if len(equals) == 1:
        return f"{'It' if len(arms) == 1 else 'The one that is not worse'} costs less as well {found[0][1]}."
    told = _most([text for _, text in sorted(found)])
    return (
        f"Of the {len(equals)} that are not worse, {len(found)} {'costs' if len(found) == 1 else 'cost'} less: {told}."
    )


def _share(row: Row, quantity: Quantity, table: Table) -> float | None:
    """An arm's cost over its reference's, where the verdict on it is better; lower is cheaper."""
    found = judged(row, quantity)
    if found is None or found.verdict != "better":
        return None
    ratio = _ratio(row, quantity)
    if ratio is not None:
        return ratio.mean
    own = row.measured[quantity.key].value
    base = next((other.measured[quantity.key].value for other in table.rows if other.arm == row.reference), None)
    return own.mean / base.mean if own and base and own.mean > 0 and base.mean > 0 else None


def _verdict(row: Row, quantity: Quantity) -> str:
    found = judged(row, quantity)
    return found.verdict if found else ""


def _verb(primary: Quantity, verdict: str, *, plural: bool) -> str:
    verb = "raise" if (verdict == "better") == (primary.better == "higher") else "lower"
    return verb if plural else f"{verb}s"


def _moved(table: Table, rows: Sequence[Row]) -> str:
    """Arms with what they change, the largest change first."""
    primary = primary_of(table)
    return _most([f"{_name(row)}{_by(table, row)}" for row in sorted(rows, key=lambda row: -_effect(row, primary))])


def _by(table: Table, row: Row) -> str:
    """`` by 0.8 ± 0.3 pp``, `` to ×1.12``, with the reference where it is not the baseline; empty if not known."""
    primary = primary_of(table)
    amount = change(table, row, primary, signed=False)
    how = f" {'to' if _ratio(row, primary) else 'by'} {amount}" if amount else ""
    baseline = next((other.arm for other in table.rows if other.role == "baseline"), None)
    return how + (f" against {printable(row.reference)}" if row.reference and row.reference != baseline else "")


def _effect(row: Row, primary: Quantity) -> float:
    ratio, difference = _ratio(row, primary), row.measured[primary.key].difference
    if ratio is not None:
        return abs(1 - ratio.mean)
    return abs(difference.mean) if difference else 0.0


def _ratio(row: Row, quantity: Quantity) -> Estimate | None:
    beside = ratio_beside(quantity)
    found = row.measured.get(beside.key) if beside else None
    return found.value if found else None


def _plain(found: Estimate, times: float, *, signed: bool = False) -> str:
    mean, half = found.mean * times, spread(found) * times
    if half:
        return with_interval(mean, half, signed=signed)
    return number(mean, significant([mean], 2), signed=signed)


def _within(table: Table, primary: Quantity) -> str:
    """``within 0.5 pp``; empty without a margin. That of times is a share of the reference's."""
    margin = table.margins.get(primary.key)
    if margin is None:
        return ""
    if primary.stage == "latency" and primary.unit != "%":
        return f"within {100 * margin:g} %"
    shown = scale(primary, [])
    unit = "pp" if shown.unit == "%" else shown.unit
    return f"within {margin * shown.factor:g} {unit}".rstrip()


def _seeds(primary: Quantity, rows: Sequence[Row]) -> str:
    """``with 10 seeds``, or the range where arms differ."""
    counts = [found.n for row in rows if (found := judged(row, primary))]
    low, high = min(counts, default=0), max(counts, default=0)
    return f"with {counted(low)}" if low == high else f"with {low} to {high} seeds"


def _names(rows: Sequence[Row]) -> str:
    return _most([_name(row) for row in rows])


def _name(row: Row) -> str:
    """Quoted where the name has what separates names here."""
    name = printable(row.arm)
    return f"“{name}”" if set(name) & set(",;()“”") else name


def _most(items: Sequence[str]) -> str:
    shown = ", ".join(items[:_MOST_NAMED])
    return f"{shown} and {len(items) - _MOST_NAMED} more" if len(items) > _MOST_NAMED else shown


def _and(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b, and c``."""
    if len(parts) < 3:
        return " and ".join(parts)
    return f"{', '.join(parts[:-1])}, and {parts[-1]}"
