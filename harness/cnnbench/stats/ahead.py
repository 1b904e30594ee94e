"""Which of many arms may be ahead of which: a sieve over all pairs at once, before the tests of single pairs.

A thousand arms are a million pairs. Nearly all are plainly not decided, and a few products of matrices tell which.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_ROWS = 512
"""Arms looked at together."""
_SLACK = 1e-6
"""Relative, far above the rounding of the products: what they leave open is told by the tests themselves."""


def counted(data: NDArray[np.float64], fewest: int) -> NDArray[np.intp]:
    """With how many others each arm shares enough seeds to be compared, [arms].

    Args:
        data: [arms, n], not finite where a seed has no value.
        fewest: seeds that a comparison needs.
    """
    there = np.isfinite(data).astype(np.float64)
    own = there.sum(axis=1) >= fewest  # the arm itself, which is no comparison
    found: NDArray[np.intp] = np.count_nonzero(there @ there.T >= fewest, axis=1) - own
    return found


def perhaps_ahead(
    data: NDArray[np.float64], comparisons: NDArray[np.intp], level: float, fewest: int, resolution: float
) -> Iterator[NDArray[np.intp]]:
    """Of each arm the others that its tests may find ahead of it, the likeliest first.

    An arm that is not among them is not ahead, by neither of the two tests: its mean is not above, or t stays below
    what ``level`` over the number of comparisons takes and the signs are balanced too well.

    Args:
        data: [arms, n], higher is better; not finite where a seed has no value.
        comparisons: of each arm, see ``counted``.
        level: of all comparisons of an arm together.
        fewest: seeds that a comparison needs.
        resolution: the step in which values move; 0 for none.
    """
    there = np.isfinite(data).astype(np.float64)
    centre = np.array([column[np.isfinite(column)].mean() if np.isfinite(column).any() else 0.0 for column in data.T])
    # A seed's luck cancels in differences; without it squares lose fewer digits.
    plain = np.where(np.isfinite(data), data - centre, 0.0)
    squares = plain**2
    same = np.unique(np.where(np.isfinite(data), data, np.inf), axis=0, return_inverse=True)[1].reshape(-1)
    largest = np.abs(np.where(np.isfinite(data), data, 0.0)).max(initial=0.0)
    for start in range(0, len(data), _ROWS):
        own = slice(start, start + _ROWS)
        n = there[own] @ there.T
        mean = (there[own] @ plain.T - plain[own] @ there.T) / np.maximum(n, 1)
        total = there[own] @ squares.T + squares[own] @ there.T
        spread = np.maximum(total - 2 * (plain[own] @ plain.T) - n * mean**2, 0.0)
        vague = spread <= 1e-9 * total + (1e-12 * largest) ** 2  # may agree in all seeds
        deviation = np.maximum(np.sqrt(spread / np.maximum(n - 1, 1)), resolution / math.sqrt(12))
        t = mean * np.sqrt(n) / np.where(deviation > 0, deviation, 1.0)
        needed = _critical(n, np.maximum(comparisons[own], 1), level) * (1 - _SLACK)
        comparable = (n >= fewest) & (same[own, None] != same)  # nor is any ahead of itself
        above = comparable & (mean > -_SLACK * np.sqrt(total))
        for place in range(len(n)):
            by_t = above[place] & (vague[place] | (t[place] >= needed[place]))
            found = np.flatnonzero(by_t)
            rest = np.flatnonzero(above[place] & ~by_t)
            share = level / max(comparisons[start + place], 1)
            unbalanced = rest[_by_signs(data[rest], data[start + place], share)]
            yield np.concatenate([found[np.argsort(-t[place, found], kind="stable")], unbalanced])


def _critical(n: NDArray[np.float64], comparisons: NDArray[np.intp], level: float) -> NDArray[np.float64]:
    """What t takes for its share of the level, [arms, arms]."""
    from scipy.special import stdtrit

    values = np.full(n.shape, np.inf)
    for count in np.unique(comparisons):
        rows = comparisons == count
        for size in np.unique(n[rows]):
            if size >= 2:
                values[rows[:, None] & (n == size)] = -float(stdtrit(size - 1, level / count))
    return values


def _by_signs(others: NDArray[np.float64], own: NDArray[np.float64], level: float) -> NDArray[np.bool_]:
    """Where others are ahead so often that the one-sided sign test reaches a level, [others]."""
    from scipy.special import bdtrc

    with np.errstate(invalid="ignore"):
        wins, losses = np.count_nonzero(others > own, axis=1), np.count_nonzero(others < own, axis=1)
    found: NDArray[np.bool_] = wins > losses  # of no more than half p is above a half
    found[found] = bdtrc(wins[found] - 1.0, wins[found] + losses[found], 0.5) <= level
    return found
