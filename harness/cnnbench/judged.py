"""Judgements as cells of a sheet: signs, words, and a difference with as many digits as its interval supports."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cnnbench.columns import SIGNS, spread
from cnnbench.numerals import MISSING, number, significant, with_interval
from cnnbench.sheets import Cell
from cnnbench.stats.intervals import Estimate

if TYPE_CHECKING:
    from cnnbench.stats.verdicts import Judgement


def verdict_cell(judgement: Judgement | None) -> Cell:
    """The verdict as a word; where nothing is decided, from how many seeds."""
    if judgement is None or judgement.n == 0:
        return Cell(MISSING)
    if judgement.verdict == "unresolved":
        return Cell(f"unresolved (n={judgement.n})")
    return Cell(judgement.verdict)


def difference_cell(
    judgement: Judgement | None, factor: float, *, logarithmic: bool = False, sign: bool = True
) -> Cell:
    """A difference with its interval, and the verdict's sign.

    Args:
        judgement: None where there is none.
        factor: shown value = recorded value x factor.
        logarithmic: it is of logarithms, and shown as a ratio.
        sign: whether the verdict's sign follows.
    """
    if judgement is None or judgement.difference is None:
        return Cell(MISSING)
    text, mean = difference_text(judgement.difference, factor, logarithmic=logarithmic)
    lone = "(n=1)" if judgement.n == 1 else ""
    mark = SIGNS[judgement.verdict] if sign else ""
    return Cell(" ".join(filter(None, (text, lone, mark))), order=mean)


def difference_text(difference: Estimate, factor: float, *, logarithmic: bool = False) -> tuple[str, float]:
    """A difference, ± half its interval (the longer side), and the number behind the text.

    Args:
        difference: of values, or of logarithms.
        factor: shown value = recorded value x factor.
        logarithmic: it is of logarithms, and shown as a ratio.
    """
    shown = exponential(difference) if logarithmic else difference
    mean, half = shown.mean * factor, spread(shown) * factor
    if half:
        return with_interval(mean, half, signed=not logarithmic), mean
    return number(mean, significant([mean], 3), signed=not logarithmic), mean


def exponential(logs: Estimate) -> Estimate:
    """The ratio behind a difference of logarithms."""
    low, high = (None if end is None else math.exp(end) for end in (logs.low, logs.high))
    return Estimate(math.exp(logs.mean), low, high, logs.n)
