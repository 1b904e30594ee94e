"""Bootstrap intervals of a mean."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from cnnbench.stats.intervals import Estimate
from cnnbench.stats.student import CONFIDENCE, t_quantile

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

FEWEST = 5
"""Values that a bootstrap interval needs: from fewer it has no ends."""
RESAMPLES = 9_999


def bca_interval(
    values: ArrayLike, rng: np.random.Generator, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Estimate | None:
    """Mean and its BCa bootstrap interval: bias-corrected and accelerated.

    Efron, "Better bootstrap confidence intervals", JASA 82, 1987; Efron and Tibshirani, "An Introduction to the
    Bootstrap", 1993, chapter 14. The acceleration is the jackknife's. It assumes no distribution, and pays for that
    with few values: it holds the mean less often than it says. The interval lies between the smallest and the largest
    value, so for a symmetric distribution it holds the mean in at most 1 - 2^(1-n) of all cases: 94 % for five values,
    88 % for four. ``widened`` makes up for the missing factor n / (n - 1) and for the normal in place of Student's t.

    How often it held the true mean in 20,000 simulations each (1,999 resamples), at 95 %, as it is and ``widened``:

    =====================  ===========  ===========  ===========
    values                 5            10           20
    =====================  ===========  ===========  ===========
    normal                 0.84  0.92   0.90  0.94   0.92  0.95
    lognormal, sigma 0.5   0.81  0.89   0.88  0.92   0.91  0.93
    exponential            0.80  0.87   0.88  0.92   0.91  0.93
    lognormal, sigma 1     0.74  0.82   0.82  0.87   0.87  0.90
    =====================  ===========  ===========  ===========

    As it is it misses its nominal coverage by 3 to 21 points at these numbers. Widened it is within one point for
    normal values from 10 on; for 5 it misses by 3, and for skewed ones by 2 to 13, as the t interval does.

    Args:
        values: one a seed, [n]; those not finite are left out. Their order does not matter.
        rng: draws the resamples.
        confidence: nominal coverage, between 0 and 1.
        resamples: how many.

    Returns:
        None where no value is left. No ends from fewer than five values that differ; two or more that all agree give
        an interval of width zero.
    """
    from scipy.special import ndtr, ndtri

    data = np.asarray(values, dtype=np.float64)
    data = np.sort(data[np.isfinite(data)])
    n = int(data.size)
    if n == 0:
        return None
    if n > 1 and data[0] == data[-1]:
        return Estimate(float(data[0]), float(data[0]), float(data[0]), n)
    mean = float(data.mean())
    if n < FEWEST:
        return Estimate(mean, None, None, n)
    means = data[rng.integers(0, n, (resamples, n))].mean(axis=1)
    # The same values in another order have the same mean but for rounding.
    rounding = 1e-12 * float(np.abs(data).max())
    below = np.count_nonzero(means < mean - rounding) + np.count_nonzero(means <= mean + rounding)
    bias = float(ndtri(below / (2 * resamples)))
    centred = data - mean
    acceleration = float(np.sum(centred**3) / (6 * np.sum(centred**2) ** 1.5))
    z = bias + ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    low, high = np.quantile(means, ndtr(bias + z / (1 - acceleration * z)))
    return Estimate(mean, float(low), float(high), n)


def widened(confidence: float, n: int) -> float:
    """Nominal confidence to ask a bootstrap interval of a mean of ``n`` values for, so that it comes to ``confidence``.

    A bootstrap's spread lacks the factor sqrt(n / (n - 1)), and its levels are the normal's where Student's t is due.
    For normal values this makes up for both (Hesterberg, "What teachers should know about the bootstrap", The American
    Statistician 69, 2015, section 5.3).

    Args:
        confidence: between 0 and 1.
        n: number of values, 2 or more.
    """
    from scipy.special import ndtr

    return float(1 - 2 * ndtr(-math.sqrt(n / (n - 1)) * t_quantile(n - 1, confidence)))
