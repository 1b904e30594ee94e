"""Seed arithmetic before anything runs: what a number of paired seeds can show, and how many an effect needs.

All of it is for the paired t test at level alpha / m, the first step of Holm's procedure with m comparisons: what is
detected there is detected whatever the other comparisons come to. Effects and spreads are in one unit, any.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cnnbench.stats.looks import looks_for
from cnnbench.stats.student import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

ALPHA = 0.05
"""Chance of even one false verdict in a family of comparisons."""
POWER = 0.8
"""Chance of seeing an effect of the stated size, by convention (Cohen 1988)."""
MOST = 10_000
"""More seeds than that are told as such, not counted."""
_REACH, _STEP = 9.0, 0.01
"""Standard errors to either side of the true mean that powers are taken over, and the step."""
_SHARED = 0.5
"""Correlation of two arms' differences from one reference, where all arms are as noisy and as alike as each other."""


@dataclass(frozen=True)
class Spread:
    """The standard deviation of paired differences, and how well it is known.

    Attributes:
        sd: pooled over the comparisons.
        low, high: its 95 % interval.
        typical, widest: median and largest standard deviation of single comparisons.
        differences: number of paired differences that all this comes from.
    """

    sd: float
    low: float
    high: float
    typical: float
    widest: float
    differences: int


def power_of(effect: float, sd: float, n: int, comparisons: int = 1, alpha: float = ALPHA) -> float:
    """Power of the two-sided paired t test at level ``alpha / comparisons``, to within 1e-6.

    The noncentral t distribution, by its definition: where the mean lies z standard errors from the true one, the test
    rejects if the variance seen is at most ((z + shift) / critical)^2 of the true one, and that is a chi-square
    probability, averaged over z. The integrand is smooth and ends in nothing on both sides, where the trapezoidal rule
    converges fastest (Trefethen and Weideman, SIAM Review 56, 2014). ``scipy.stats`` has the distribution too, and
    takes a second to import.

    Args:
        effect: true mean difference.
        sd: of the paired differences; at least 0.
        n: paired seeds; fewer than two show nothing.
        comparisons: in the family, at least 1.
        alpha: level of the family.
    """
    from scipy.special import chdtr, stdtrit

    if n < 2:
        return 0.0
    if sd == 0:
        return 1.0 if effect else 0.0
    shift = abs(effect) / sd * math.sqrt(n)
    critical = float(stdtrit(n - 1, 1 - alpha / comparisons / 2))
    z = np.arange(-_REACH, _REACH + _STEP / 2, _STEP)
    weights = np.exp(-(z**2) / 2) * (_STEP / math.sqrt(2 * math.pi))
    return min(1.0, float(weights @ chdtr(n - 1, (n - 1) * ((z + shift) / critical) ** 2)))


def smallest_effect(sd: float, n: int, comparisons: int = 1, power: float = POWER, alpha: float = ALPHA) -> float:
    """The true mean difference that the paired t test finds with the given power; infinite for fewer than two seeds.

    Takes what ``power_of`` does.
    """
    if n < 2:
        return math.inf
    low, high = 0.0, 1.0  # power grows with the effect: double until it is enough, then halve the bracket
    while power_of(high, 1.0, n, comparisons, alpha) < power:
        low, high = high, 2 * high
    while high - low > 1e-7 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power_of(middle, 1.0, n, comparisons, alpha) >= power else (middle, high)
    return sd * high


def seeds_needed(
    effect: float, sd: float, comparisons: int = 1, power: float = POWER, alpha: float = ALPHA
) -> int | None:
    """The fewest paired seeds with which the paired t test finds a true mean difference with the given power.

    Takes what ``power_of`` does.

    Returns:
        At least 2; None for an effect of zero, and where more than ``MOST`` are needed.
    """

    def enough(n: int) -> bool:
        return power_of(effect, sd, n, comparisons, alpha) >= power

    if effect == 0 or not enough(MOST):
        return None
    low, high = 1, 2  # power grows with n: double until it is enough, then halve the bracket
    while not enough(high):
        low, high = high, min(2 * high, MOST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def smallest_p(n: int, *, looking: bool = False) -> float:
    """The smallest two-sided p that an exact sign-flip test of n paired seeds can come to: 2 of its 2^n flips.

    Args:
        n: paired seeds.
        looking: they are the most that ``looks.looks_for`` leads to. The p over all looks is then larger by the sum of
            their weights, see ``looks.p_over_looks``.
    """
    looks = looks_for(n) if looking else (n,)
    return min(1.0, 2.0 ** (1 - n) * (sum(looks) / n))


def seeds_for_sign_flip(comparisons: int, alpha: float = ALPHA, *, looking: bool = False) -> int:
    """The fewest paired seeds with which the exact sign-flip test can reach ``alpha / comparisons`` at all.

    Takes what ``smallest_p`` does.
    """
    n = math.ceil(1 + math.log2(comparisons / alpha))
    while smallest_p(n, looking=looking) > alpha / comparisons:
        n += 1
    return n


def pooled_spread(groups: Sequence[Sequence[ArrayLike]]) -> Spread | None:
    """The standard deviation of paired differences, pooled over comparisons, with its chi-square interval.

    Comparisons that share a reference also share its noise, and tell less of the spread than as many independent ones
    would, see ``effective_df``. The pooled value is an average: comparisons may well differ in their spread.

    Args:
        groups: comparisons that share a reference; of each comparison one difference a seed, those not finite are left
            out.

    Returns:
        None where no comparison has two values, or where all differences agree.
    """
    df = counted = 0.0
    known: list[NDArray[np.float64]] = []
    for group in groups:
        finite = [row[np.isfinite(row)] for row in (np.asarray(each, dtype=np.float64) for each in group)]
        own = [row for row in finite if row.size >= 2]
        if own:
            degrees = sum(row.size - 1 for row in own)
            df, counted = df + degrees, counted + effective_df(degrees, len(own))
            known += own
    if not known:
        return None
    sd = math.sqrt(math.fsum(float(((row - row.mean()) ** 2).sum()) for row in known) / df)
    if sd <= 1e-12 * max(float(np.abs(row).max()) for row in known):
        return None
    low, high = sd_interval(sd, counted)
    single = [float(row.std(ddof=1)) for row in known]
    return Spread(sd, low, high, float(np.median(single)), max(single), sum(row.size for row in known))


def effective_df(df: float, comparisons: int) -> float:
    """Degrees of freedom of a variance pooled over comparisons that share a reference.

    Where all arms are equally noisy and equally alike, two of their differences from one reference correlate by 1/2, so
    k comparisons of n seeds count (n - 1) k / (1 + (k - 1) / 4) degrees of freedom (Box 1954, "Some theorems on
    quadratic forms", for equally correlated variables).

    Args:
        df: sum of the comparisons' own.
        comparisons: their number.
    """
    return df / (1 + (comparisons - 1) * _SHARED**2)


def sd_interval(sd: float, df: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The chi-square interval of a standard deviation; exact for independent normal values."""
    from scipy.special import chdtri

    tail = (1 - confidence) / 2
    return sd * math.sqrt(df / float(chdtri(df, tail))), sd * math.sqrt(df / float(chdtri(df, 1 - tail)))
