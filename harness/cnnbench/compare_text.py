"""A comparison's numbers as text, the same in every format that people read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnbench.numerals import MISSING, interval_decimals, number, scale, significant
from cnnbench.text import listed

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnbench.compare import Comparison, Result, Trials
    from cnnbench.evidence import Evidence
    from cnnbench.quantities import Quantity
    from cnnbench.shifts import Shift

_MOST_DECIMALS = 3
_ROUNDING = 1e-9
"""Values below this are what is left of differences of equal numbers."""


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        arm: its name.
        metric: the column's name in a suite's table.
        before, after: with their unit.
        difference: with its interval.
        beside: the same for the ratio to the reference; empty where there is none.
        verdict: one of ``compare.Verdict``.
        reason: what is to be said of it.
    """

    arm: str
    metric: str
    before: str
    after: str
    difference: str
    beside: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class Change:
    """A shift as people read it: a share of the value before where ``relative``, else in the recorded unit."""

    mean: float
    low: float | None
    high: float | None
    relative: bool


def lines(result: Result) -> list[Line]:
    """All lines: each arm's trials that ended otherwise, then its metrics."""
    found: list[Line] = []
    for arm in result.arms:
        found += [_trials_line(one) for one in result.trials if one.arm == arm]
        found += [_line(one) for one in result.comparisons if one.arm == arm]
    return found


def change(evidence: Evidence, quantity: Quantity) -> Change:
    """The shift in the form that suits the quantity: points of a percentage, else a share where there is one."""
    if evidence.logarithmic:
        return _mapped(evidence.shift, math.expm1, relative=True)
    if quantity.unit in {"", "%", "nats"} or evidence.before == 0:
        return _mapped(evidence.shift, lambda value: value, relative=False)
    return _mapped(evidence.shift, lambda value: value / abs(evidence.before), relative=True)


def change_beside(evidence: Evidence) -> Change | None:
    """The shift of the ratio to the reference; None where there is none."""
    return None if evidence.beside is None else _mapped(evidence.beside, math.expm1, relative=True)


def _mapped(shift: Shift, scaled: Callable[[float], float], *, relative: bool) -> Change:
    low, high = (None, None) if shift.interval is None else map(scaled, shift.interval)
    return Change(scaled(shift.mean), low, high, relative)


def _line(one: Comparison) -> Line:
    evidence, quantity = one.evidence, one.quantity
    if evidence is None:
        return Line(one.arm, quantity.label, MISSING, MISSING, MISSING, "", one.verdict, one.reason)
    shown = scale(quantity, (evidence.before, evidence.after))
    values = [evidence.before * shown.factor, evidence.after * shown.factor]
    decimals = significant(values, 4)
    if number(values[0], decimals) == number(values[1], decimals):  # a few parameters more must not hide
        decimals = min(decimals + _MOST_DECIMALS, significant([values[1] - values[0]], 1) or decimals)
    before, after = (f"{number(value, decimals)} {shown.unit}".strip() for value in values)
    unit, factor = ("pp" if shown.unit == "%" else shown.unit), shown.factor
    difference = _shown(change(evidence, quantity), unit, factor)
    beside = change_beside(evidence)
    text = f"{_shown(beside, unit, factor)} beside {evidence.reference}" if beside else ""
    return Line(one.arm, quantity.label, before, after, difference, text, one.verdict, one.reason)


def _shown(found: Change, unit: str, factor: float) -> str:
    """E.g. ``+8.1 % (+6.9 to +9.3)``."""
    unit, factor = ("%", 100.0) if found.relative else (unit, factor)
    mean = found.mean * factor
    if found.low is None or found.high is None or found.low == found.high:
        digits = 2 if found.low is None else 3
        return f"{_signed(mean, significant([mean], digits), found)} {unit}".strip()
    low, high = found.low * factor, found.high * factor
    # Of logarithms the interval is uneven: its long side must not take the digits of what lies on the short one.
    decimals = interval_decimals(min(high - mean, mean - low))
    text = f"{_signed(mean, decimals, found)} {unit}".strip()
    return f"{text} ({_signed(low, decimals, found)} to {_signed(high, decimals, found)})"


def _signed(value: float, decimals: int, of: Change) -> str:
    """With more decimals where these would make nothing of something, or a loss of all of a loss of nearly all."""
    decimals = min(decimals, _MOST_DECIMALS)
    if of.relative:
        decimals = max(decimals, 0)
    for bound in (0.0, -100.0) if of.relative else (0.0,):
        left = abs(value - bound)
        if left > _ROUNDING and round(value, decimals) == bound:
            decimals = significant([left], 1)
    return number(value, decimals, signed=True)


def _trials_line(one: Trials) -> Line:
    seeds = f"{'seed' if len(one.seeds) == 1 else 'seeds'} {listed(one.seeds)}"
    return Line(one.arm, "trials", one.before, one.after, seeds, "", one.verdict, one.reason)
