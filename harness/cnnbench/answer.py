"""The answer to a table's question, in words.

It says what the verdicts say and nothing more: an arm whose verdict is open is never called better, however high its
mean is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cnnbench.claims import Claim, counted, joined, most, quoting, seeds_in_words, told, verb
from cnnbench.columns import finest, spread
from cnnbench.numerals import factor, interval_decimals, number, scale, with_interval
from cnnbench.quantities import ratio_beside
from cnnbench.verdicts import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cnnbench.quantities import Quantity
    from cnnbench.stats.intervals import Estimate
    from cnnbench.stats.verdicts import Judgement
    from cnnbench.tables import Row, Table

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
    unfinished = f"{pending} of {planned} trials {'has' if pending == 1 else 'have'} not run yet." if pending else ""
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
    amount = _plain(difference, shown.factor, finest(table, quantity), signed=True)
    unit = "pp" if shown.unit == "%" else shown.unit
    return " ".join(filter(None, (amount if signed else amount.lstrip("+−"), unit)))


def within(table: Table) -> str:
    """The margin of the primary quantity, ``within 0.5 pp``; empty for none. That of times is a share."""
    primary = primary_of(table)
    margin = table.margins.get(primary.key)
    if margin is None:
        return ""
    if kind_of(primary) == "timed":
        return f"within {100 * margin:g} %"
    shown = scale(primary, [])
    unit = "pp" if shown.unit == "%" else shown.unit
    return f"within {margin * shown.factor:g} {unit}".rstrip()


def shown_names(table: Table) -> Callable[[str], str]:
    """How the table's arms are named in an answer."""
    return quoting(row.arm for row in table.rows)


def _sentences(table: Table) -> tuple[str, ...]:
    primary = primary_of(table)
    arms = [row for row in table.rows if row.role == "arm"]
    there = {row.arm for row in table.rows if row.ok}
    if not there:
        return ("No trial is ok, so there is nothing to answer with.",)
    if not arms:
        return (_alone(table, primary),)
    if not any(row.reference in there for row in arms if row.ok):
        return (_incomparable(table, arms),)
    if not any(judged(row, primary) for row in arms):
        return (f"There is no verdict on {primary.label}: the table has values and differences alone.",)
    if len(arms) == 1:
        return _one(table, primary, arms[0]), _savings(table, primary, arms)
    said = told([_claim(table, primary, row) for row in arms], primary, within(table))
    return f"{said}.", _savings(table, primary, arms)


def _claim(table: Table, primary: Quantity, row: Row) -> Claim:
    found = judged(row, primary)
    verdict = found.verdict if found else ("silent" if row.ok else "missing")
    name = shown_names(table)(row.arm)
    return Claim(name, verdict, _by(table, row), _effect(row, primary), found.n if found else 0)


def _one(table: Table, primary: Quantity, row: Row) -> str:
    verdict, name = _verdict(row, primary), shown_names(table)(row.arm)
    if verdict in {"better", "worse"}:
        return f"{name} {verb(primary, verdict, plural=False)} {primary.label}{_by(table, row)}."
    if verdict == "equivalent":
        reach = within(table)
        return f"{name} makes no difference in {primary.label} that matters{reach and f' ({reach})'}."
    seen, found = change(table, row, primary), judged(row, primary)
    seeds = seeds_in_words([found.n] if found else [])
    return f"Whether {name} changes {primary.label} stays undecided with {seeds}{seen and f' ({seen})'}."


def _alone(table: Table, primary: Quantity) -> str:
    row = next(row for row in table.rows if row.ok)
    name, value = shown_names(table)(row.arm), row.measured[primary.key].value
    if value is None:
        return f"There is one arm, {name}, and nothing to compare it with."
    shown = scale(primary, [value.mean])
    decimals = finest(table, primary)
    amount = " ".join(filter(None, (_plain(value, shown.factor, decimals), shown.unit)))
    return f"There is nothing to compare with: {name} alone has {primary.label} {amount} over {counted(value.n)}."


def _incomparable(table: Table, arms: Sequence[Row]) -> str:
    """Why no arm has a reference: there is none, or trials are missing on either side."""
    references = list(dict.fromkeys(shown_names(table)(row.reference) for row in arms if row.reference))
    if not references:
        return "The run has no baseline, so no arm can be called better or worse."
    whom = joined(references) if any(row.ok for row in arms) else ("the arm" if len(arms) == 1 else "any arm")
    return f"No trial of {whom} is ok, so there is nothing to compare."


def _savings(table: Table, primary: Quantity, arms: Sequence[Row]) -> str:
    """Which of the arms that are shown to be no worse cost less, the largest saving first; empty for none.

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
            share_text = ", ".join(f"{label} ×{factor(share)}" for label, share in shares.items())
            found.append(
                (
                    min(shares.values()),
                    f"({share_text})" if len(equals) == 1 else f"{shown_names(table)(row.arm)} ({share_text})",
                )
            )
    if not found:
        return ""
    if len(equals) == 1:
        return f"{'It' if len(arms) == 1 else 'The one shown better or equivalent'} costs less as well {found[0][1]}."
    cheaper = most([text for _, text in sorted(found)])
    count = f"{len(found)} {'costs' if len(found) == 1 else 'cost'} less"
    return f"Of the {len(equals)} shown better or equivalent, {count}: {cheaper}."


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


def _by(table: Table, row: Row) -> str:
    """`` by 0.8 ± 0.3 pp``, `` to ×1.12``, with the reference where it is not the baseline; empty if not known."""
    primary = primary_of(table)
    amount = change(table, row, primary, signed=False)
    how = f" {'to' if _ratio(row, primary) else 'by'} {amount}" if amount else ""
    baseline = next((other.arm for other in table.rows if other.role == "baseline"), None)
    return how + (
        f" against {shown_names(table)(row.reference)}" if row.reference and row.reference != baseline else ""
    )


def _effect(row: Row, primary: Quantity) -> float:
    ratio, difference = _ratio(row, primary), row.measured[primary.key].difference
    if ratio is not None:
        return abs(1 - ratio.mean)
    return abs(difference.mean) if difference else 0.0


def _ratio(row: Row, quantity: Quantity) -> Estimate | None:
    beside = ratio_beside(quantity)
    found = row.measured.get(beside.key) if beside else None
    return found.value if found else None


def _plain(found: Estimate, times: float, most_decimals: float, *, signed: bool = False) -> str:
    """A number with its interval; without one it has two digits, and no more decimals than its column's values."""
    mean, half = found.mean * times, spread(found) * times
    if half:
        return with_interval(mean, half, signed=signed)
    return number(mean, int(min(max(0, interval_decimals(abs(mean))) if mean else 0, most_decimals)), signed=signed)
