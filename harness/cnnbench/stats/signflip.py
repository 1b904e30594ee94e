"""Sign-flip tests of paired differences: those which assume least."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

EXACT_PAIRS = 20
"""Up to so many pairs all 2^n patterns of signs are counted."""
RESAMPLES = 9_999
"""Patterns drawn where there are more pairs."""

Alternative = Literal["two-sided", "greater", "less"]
_TIE = 1e-9
"""Sums that differ by less than this share of the largest one are equal but for rounding."""


def sign_flip(differences: ArrayLike, rng: np.random.Generator, alternative: Alternative = "two-sided") -> float:
    """P-value of "the differences are symmetric about zero", by their sum under all patterns of signs.

    Exact up to 20 pairs (Fisher, "The Design of Experiments", 1935, section 21): the share of the 2^n patterns whose
    sum is at least as extreme as the one seen, itself included and those equal to it counted. Above, 9,999 patterns
    are drawn, and p is (b + 1) / (m + 1), never zero and never too small (Phipson and Smyth, "Permutation p-values
    should never be zero", 2010). If a technique does nothing, arm and reference can be exchanged within each seed, and
    the differences are symmetric: the test then needs nothing else, neither normality nor equal spread.

    Args:
        differences: one a pair, [n], finite.
        rng: for the patterns drawn; unused up to 20 pairs.
        alternative: ``greater`` asks whether they lie above zero, ``less`` below.

    Returns:
        Between 2^-n (two-sided: 2^(1-n)) and 1; 1 where there are none.
    """
    data = np.asarray(differences, dtype=np.float64)
    largest = float(np.abs(data).sum())
    if largest == 0:
        return 1.0
    seen = float(data.sum())
    if alternative == "less":
        data, seen = -data, -seen
    two_sided = alternative == "two-sided"
    limit = (abs(seen) if two_sided else seen) - _TIE * largest
    if two_sided and limit <= 0:
        return 1.0
    if len(data) <= EXACT_PAIRS:
        # By symmetry the sums at or below -limit are as many as those at or above limit.
        return (2 if two_sided else 1) * _count_at_least(data, limit) / 2.0 ** len(data)
    bits = np.unpackbits(
        np.frombuffer(rng.bytes(RESAMPLES * -(-len(data) // 8)), np.uint8).reshape(RESAMPLES, -1), axis=1
    )
    # Products of like types are far faster.
    sums = 2 * (bits[:, : len(data)].astype(np.float64) @ data) - data.sum()
    extreme = int(np.count_nonzero((np.abs(sums) if two_sided else sums) >= limit))
    return (extreme + 1) / (RESAMPLES + 1)


def _count_at_least(data: NDArray[np.float64], limit: float) -> int:
    """How many of the 2^n signed sums reach ``limit``: sums of one half of the pairs meet those of the other."""
    half = len(data) // 2
    one, other = _signed_sums(data[:half]), np.sort(_signed_sums(data[half:]))
    return one.size * other.size - int(np.searchsorted(other, limit - one, side="left").sum())


def _signed_sums(data: NDArray[np.float64]) -> NDArray[np.float64]:
    """All sums of ±data, [2^n]."""
    sums = np.zeros(1)
    for value in data:
        sums = np.concatenate([sums - value, sums + value])
    return sums
