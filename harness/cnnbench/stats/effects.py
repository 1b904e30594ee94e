"""How large a paired difference is against its spread, and how often an arm wins."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from cnnbench.stats.intervals import Estimate
from cnnbench.stats.student import CONFIDENCE

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def hedges_correction(df: int) -> float:
    """The factor J that takes the bias out of a standardized mean (Hedges 1981, eq. 6e): exact, by gamma functions.

    Args:
        df: degrees of freedom of the standard deviation, 2 or more; with 1 the estimate has no expectation.
    """
    return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)


def effect_size(differences: ArrayLike) -> float | None:
    """Hedges' g of paired differences: J(n-1) * mean / s, with s their standard deviation.

    Cohen's d_z (Cohen 1988, section 2.3.5) without its bias for normal differences (Hedges, "Distribution theory for
    Glass's estimator of effect size", 1981). It has the sign of the mean. Its unit is the spread of the *paired*
    differences, which common random numbers make small: it says how plain an effect is to see with these seeds, and
    must not be compared with effects in units of the spread between trainings.

    Args:
        differences: one a seed, [n], finite; those equal but for rounding made equal.

    Returns:
        None below three differences, and where all agree: there is no spread to count in.
    """
    data = np.asarray(differences, dtype=np.float64)
    if data.size < 3 or np.all(data == data[0]):
        return None
    return hedges_correction(data.size - 1) * float(data.mean() / data.std(ddof=1))


def improvement(differences: ArrayLike, better: Literal["higher", "lower"]) -> Estimate | None:
    """Share of the seeds in which the arm is better than its reference, ties counted half, with its 95 % interval.

    Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice" (2021), define the
    probability of improvement over all pairs of a run of one with a run of the other, as Mann and Whitney's U does,
    since their runs are independent. Here seeds are pairs by design, so it is taken over pairs: the probability that
    the arm wins where both train under the same seed. The interval is Clopper and Pearson's (1934).

    Args:
        differences: arm minus reference, one a seed, [n], finite.
        better: which sign is a win.

    Returns:
        The share as ``mean``; None where there are no differences.
    """
    from scipy.special import betaincinv

    data = np.asarray(differences, dtype=np.float64)
    n = int(data.size)
    if n == 0:
        return None
    signs = np.sign(data) if better == "higher" else -np.sign(data)
    wins = float(np.sum(signs + 1)) / 2
    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(wins, n - wins + 1, tail)) if wins > 0 else 0.0
    high = float(betaincinv(wins + 1, n - wins, 1 - tail)) if wins < n else 1.0
    return Estimate(wins / n, low, high, n)
