"""Bootstrap intervals of a mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cnnbench.stats.intervals import Estimate
from cnnbench.stats.student import CONFIDENCE

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

RESAMPLES = 9_999


def bca_interval(
    values: ArrayLike, rng: np.random.Generator, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Estimate | None:
    """Mean and its BCa bootstrap interval: bias-corrected and accelerated.

    Efron, "Better bootstrap confidence intervals", JASA 82, 1987; Efron and Tibshirani, "An Introduction to the
    Bootstrap", 1993, chapter 14. The acceleration is the jackknife's.

    Args:
        values: one a seed, [n]; those not finite are left out. Their order does not matter.
        rng: draws the resamples.
        confidence: nominal coverage, between 0 and 1.
        resamples: how many.

    Returns:
        None where no value is left. No ends from fewer than three values; values that agree give an interval of width
        zero.
    """
    from scipy.special import ndtr, ndtri

    data = np.asarray(values, dtype=np.float64)
    data = np.sort(data[np.isfinite(data)])
    n = int(data.size)
    if n == 0:
        return None
    if data[0] == data[-1]:
        return (
            Estimate(float(data[0]), float(data[0]), float(data[0]), n)
            if n > 1
            else Estimate(float(data[0]), None, None, 1)
        )
    mean = float(data.mean())
    if n == 2:
        return Estimate(mean, None, None, n)
    means = data[rng.integers(0, n, (resamples, n))].mean(axis=1)
    below = (np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)) / (2 * resamples)
    bias = float(ndtri(below))
    centred = data - mean
    acceleration = float(np.sum(centred**3) / (6 * np.sum(centred**2) ** 1.5))
    z = bias + ndtri([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.quantile(means, ndtr(bias + z / (1 - acceleration * z)))
    return Estimate(mean, float(low), float(high), n)
