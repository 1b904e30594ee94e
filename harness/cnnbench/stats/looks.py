"""Looks at growing data: when they are, and the distribution of the smallest p-value over all of them.

Later looks get higher levels, in proportion to their number of seeds: early looks save seeds where an effect is plain,
and hardly cost any power where it is not.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from cnnbench.stats.student import CONFIDENCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST_LOOK = 4
"""Fewest seeds of a first look. With three, among ten arms only effects of twenty standard deviations would stop there,
and the error spent on it is missing later."""
GROWTH = 1.5
"""Each look has about so many times the seeds of the one before."""
PATHS = 2**19
"""Paths drawn for the distribution over all looks, and as many again by symmetry: a one-sided level of 0.25 %, that of
ten arms, is met to within 2 % of itself (one standard error)."""
_FEWEST = 100
"""Where fewer paths than these lie beyond, their share says too little."""
_KNOTS = 4_000


class Step(NamedTuple):
    """One look at one arm.

    Attributes:
        n: pairs there are.
        weight: of its level; the number of seeds planned for it, over the largest.
    """

    n: int
    weight: float


def looks_for(most_seeds: int) -> tuple[int, ...]:
    """Numbers of seeds at which to look, the last of them ``most_seeds``: 4, 6, 9, 13, 20 for 20.

    With fewer than 6 seeds in all there is one look.
    """
    looks = [most_seeds]
    while (earlier := round(looks[0] / GROWTH)) >= FIRST_LOOK:
        looks.insert(0, earlier)
    return tuple(looks)


def p_over_looks(lowest: float, steps: tuple[Step, ...], test: Literal["t", "sign-flip"]) -> float:
    """Sequential p-value: how probable, without any effect, so low a value is over all planned looks.

    Let P(l) be the one-sided p of look l by itself and w(l) its weight. After any look, ``lowest`` is the smallest
    P / w so far, and the sequential p-value is the probability that min P / w over *all* looks is no larger. Calling
    an effect at the first look where it is at most a level is the group sequential test with nominal levels in
    proportion to w (significance-level approach: Pocock, "Group sequential methods in the design and analysis of
    clinical trials", Biometrika 64, 1977); as a p-value it can be corrected for several arms like any other (Liu and
    Anderson, "On adaptive extensions of group sequential trials for clinical investigations", JASA 103, 2008).

    For the t test it is found by simulation: the joint distribution of nested t statistics of normal values does not
    depend on their spread. The usual normal approximation would be far off at four seeds. For the sign-flip test, and
    where too few simulated paths lie beyond, Bonferroni's inequality over the looks stands in: ``lowest`` times the sum
    of the w. It is somewhat too large, never too small.

    Args:
        lowest: smallest P / w so far.
        steps: all looks, those to come as they are planned.
        test: behind P.
    """
    bound = min(1.0, lowest * math.fsum(step.weight for step in steps))
    if test != "t" or len(steps) == 1:
        return bound
    values, shares = _distribution(steps)
    share = float(np.interp(lowest, values, shares))
    return min(bound, max(share, _FEWEST / (2 * PATHS)))


def repeated_confidence(steps: tuple[Step, ...], place: int) -> float:
    """Confidence that an interval at one look must have by itself, for all looks to hold the truth together with 95 %.

    Args:
        steps: as in ``p_over_looks``.
        place: of the look.
    """
    if len(steps) == 1:
        return CONFIDENCE
    values, shares = _distribution(steps)
    lowest = float(np.interp((1 - CONFIDENCE) / 2, shares, values))
    return 1 - 2 * lowest * steps[place].weight


@lru_cache(maxsize=256)
def _distribution(steps: tuple[Step, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values of min P / w over nested paired t tests without any effect, and the share of paths at or below each."""
    from scipy.special import stdtr

    rng = np.random.default_rng(0)
    total, squares, pairs = np.zeros(PATHS), np.zeros(PATHS), 0
    lowest = [np.full(PATHS, np.inf), np.full(PATHS, np.inf)]  # of "above" and, by symmetry, of "below"
    for n, weight in steps:
        new, pairs = n - pairs, n
        block = math.sqrt(new) * rng.standard_normal(PATHS)
        total += block
        squares += block**2 / new  # the new values' own mean, and what is about it
        if new > 1:
            squares += rng.chisquare(new - 1, PATHS)
        spread = np.sqrt((squares - total**2 / n) / (n - 1))
        p = stdtr(n - 1, -total / (math.sqrt(n) * spread))
        for side, value in zip(lowest, (p, 1 - p), strict=True):
            np.minimum(side, value / weight, out=side)
    values = np.sort(np.concatenate(lowest))
    ranks = np.unique(np.geomspace(1, values.size, _KNOTS).astype(np.int64))
    return values[ranks - 1], ranks / values.size
