"""One-sided and two-sided tests of a mean paired difference, with spread or without."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from cnnbench.stats.signflip import sign_flip

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Test = Literal["t", "sign-flip"]
_ROUNDING = 1e-9


def p_above(
    differences: ArrayLike, limit: float = 0.0, *, test: Test, resolution: float = 0.0, rng: np.random.Generator
) -> float:
    """One-sided p of "the true mean difference is at most ``limit``".

    The paired t test is exact for independent normal differences, the sign-flip test for ones symmetric about the
    limit. Differences that agree in all seeds tell no spread. The t test then has the standard error of rounding to
    the resolution, step / sqrt(12 n) (Sheppard 1898), and its p is at least 2^-n, that of the sign-flip test: two or
    three seeds that agree by chance prove nothing, and without a resolution no t could be had at all.

    Args:
        differences: one a seed, [n], finite, at least two; those equal but for rounding made equal, as
            ``intervals.paired_differences`` does.
        limit: in the unit of the differences.
        test: which.
        resolution: the step in which values move, such as one image's share of the test split; 0 for none.
        rng: for sign-flip tests of more than 20 pairs.

    Raises:
        ValueError: fewer than two differences.
    """
    data = np.asarray(differences, dtype=np.float64)
    n = data.size
    if n < 2:
        raise ValueError(f"a test needs two differences or more, found {n}")
    beyond = data - limit
    beyond[np.abs(beyond) <= _ROUNDING * np.maximum(abs(limit), np.abs(data))] = 0.0  # on the limit but for rounding
    if test == "sign-flip":
        return sign_flip(beyond, rng, "greater")
    return _t_above(beyond, resolution)


def p_below(
    differences: ArrayLike, limit: float = 0.0, *, test: Test, resolution: float = 0.0, rng: np.random.Generator
) -> float:
    """One-sided p of "the true mean difference is at least ``limit``"; else as ``p_above``."""
    data = np.asarray(differences, dtype=np.float64)
    return p_above(-data, -limit, test=test, resolution=resolution, rng=rng)


def p_different(differences: ArrayLike, *, test: Test, resolution: float = 0.0, rng: np.random.Generator) -> float:
    """Two-sided p of "the true mean difference is zero"; else as ``p_above``.

    It is twice the smaller of the one-sided ones.
    """
    data = np.asarray(differences, dtype=np.float64)
    if test == "sign-flip" and data.size >= 2:
        return sign_flip(data, rng)
    towards = data if data.mean() >= 0 else -data
    return min(1.0, 2 * p_above(towards, test=test, resolution=resolution, rng=rng))


def sign_above(differences: ArrayLike) -> float:
    """One-sided p of the exact sign test: "a difference is at most as often above zero as below" (Arbuthnott 1710).

    Zeros are left out. Spread plays no part, so that a few wild differences do not hide what all the others say.

    Args:
        differences: one a seed, [n], finite.

    Returns:
        Between 2^-n and 1; 1 where none differs from zero.
    """
    from scipy.special import bdtrc

    data = np.asarray(differences, dtype=np.float64)
    above, differing = int(np.count_nonzero(data > 0)), int(np.count_nonzero(data))
    return float(bdtrc(above - 1, differing, 0.5)) if above else 1.0


def _t_above(beyond: NDArray[np.float64], resolution: float) -> float:
    from scipy.special import stdtr

    n = beyond.size
    agree = bool(np.ptp(beyond) <= _ROUNDING * np.abs(beyond).max())
    spread = max(0.0 if agree else float(beyond.std(ddof=1)), resolution / math.sqrt(12))
    mean = float(beyond.mean())
    p = float(stdtr(n - 1, -math.sqrt(n) * mean / spread)) if spread else float(mean <= 0)
    return max(p, 2.0**-n) if agree else p
