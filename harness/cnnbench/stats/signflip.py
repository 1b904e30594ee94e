"""Sign-flip tests of paired differences: those which assume least."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

EXACT_PAIRS = 20
"""Up to so many pairs all 2^n patterns of signs are counted."""
RESAMPLES = 9_999
"""Patterns drawn where there are more pairs."""
_AT_ONCE = 128
"""Rows that meet the patterns together: more take memory and no less time."""

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
    sums = 2 * (_patterns(len(data), rng) @ data) - data.sum()
    extreme = int(np.count_nonzero((np.abs(sums) if two_sided else sums) >= limit))
    return (extreme + 1) / (RESAMPLES + 1)


def sign_flips(rows: Sequence[NDArray[np.float64]], rng: np.random.Generator) -> list[float]:
    """``sign_flip`` of many rows of differences, two-sided; patterns are drawn once for all rows of one length.

    Each p is as good as by itself: it needs nothing of the other rows. All of them meet the patterns in one product.

    Args:
        rows: of each comparison one difference a pair, [n], finite.
        rng: for the patterns drawn; unused up to 20 pairs.
    """
    found = [1.0 if row.size > EXACT_PAIRS else sign_flip(row, rng) for row in rows]
    lengths = sorted({row.size for row in rows if row.size > EXACT_PAIRS})
    for n in lengths:
        patterns = _patterns(n, rng)
        places = [place for place, row in enumerate(rows) if row.size == n]
        for start in range(0, len(places), _AT_ONCE):
            some = places[start : start + _AT_ONCE]
            data = np.stack([rows[place] for place in some])
            seen = data.sum(axis=1)
            limits = np.abs(seen) - _TIE * np.abs(data).sum(axis=1)
            sums = np.abs(2 * (patterns @ data.T) - seen)
            extreme = np.count_nonzero(sums >= limits, axis=0)
            for place, limit, count in zip(some, limits, extreme, strict=True):
                found[place] = (int(count) + 1) / (RESAMPLES + 1) if limit > 0 else 1.0
    return found


def _patterns(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Patterns of signs, 1 for each that is turned, [RESAMPLES, n]; as floats, whose products are far faster."""
    return _unpacked(rng.bytes(RESAMPLES * -(-n // 8)), n)


@lru_cache(maxsize=1)  # the families of a table draw the same ones, and for a thousand pairs they are 80 MB
def _unpacked(drawn: bytes, n: int) -> NDArray[np.float64]:
    bits = np.frombuffer(drawn, np.uint8).reshape(RESAMPLES, -1)
    patterns = np.unpackbits(bits, axis=1)[:, :n].astype(np.float64)
    patterns.flags.writeable = False
    return patterns


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
