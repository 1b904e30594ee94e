"""How far a quantity moved between two runs, and whether that is more than a tolerance: pure functions.

Each comparison asks two one-sided questions, "did it rise by more than the limit" and "did it fall by more". Their
p-values, doubled, are held against the level together, so that one comparison alone is called exactly where its 95 %
interval lies wholly beyond the limit. Of many comparisons Holm's step-down keeps the chance of even one false call
within the level, however they depend on each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cnnbench.stats.intervals import paired_difference
from cnnbench.stats.student import t_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

_Z = 1.959963984540054
"""Half of a 95 % normal interval, in standard errors."""


@dataclass(frozen=True)
class Shift:
    """A mean difference, after minus before.

    Attributes:
        mean: over the pairs.
        error: standard error of the mean; None where nothing tells it.
        df: degrees of freedom of the error; None for a normal one.
        n: number of pairs.
    """

    mean: float
    error: float | None
    df: int | None
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval; None without an error."""
        if self.error is None:
            return None
        half = self.error * (_Z if self.df is None else t_quantile(self.df))
        return self.mean - half, self.mean + half

    def p_above(self, limit: float) -> float:
        """One-sided p of "the true shift is at most ``limit``"; 1 without an error."""
        return self._tail(self.mean - limit, limit)

    def p_below(self, limit: float) -> float:
        """One-sided p of "the true shift is at least ``limit``"; 1 without an error."""
        return self._tail(limit - self.mean, limit)

    def _tail(self, beyond: float, limit: float) -> float:
        from scipy.special import ndtr, stdtr

        if self.error is None:
            return 1.0
        if self.error == 0:  # a shift as large as the limit but for the last bits is not beyond it
            return 0.0 if beyond > 1e-9 * max(abs(limit), abs(self.mean)) else 1.0
        t = beyond / self.error
        return float(ndtr(-t) if self.df is None else stdtr(self.df, -t))


def paired_shift(after: ArrayLike, before: ArrayLike, resolution: float = 0.0) -> Shift | None:
    """Shift over the seeds that both have, with the paired t error of ``stats.paired_difference``.

    Args:
        after: one value a seed, [n]; not finite where a seed has none.
        before: likewise, in the same order of seeds.
        resolution: the step in which values move, such as one image's share of the test split. Differences that agree
            in all seeds are still known no better than to such a step, whose error is step / sqrt(12) (Sheppard): two
            seeds that both lose one image prove nothing.

    Returns:
        None where they have no seed in common.
    """
    estimate = paired_difference(after, before)
    if estimate is None:
        return None
    if estimate.half is None:
        return Shift(estimate.mean, None, None, estimate.n)
    error = estimate.half / t_quantile(estimate.n - 1)
    if estimate.mean:
        error = max(error, resolution / math.sqrt(12 * estimate.n))
    return Shift(estimate.mean, error, estimate.n - 1, estimate.n)


def interval_shift(logs: Sequence[tuple[float, float]]) -> Shift:
    """Mean of a few shifts that each come with a standard error of their own; normal, no spread between them.

    Args:
        logs: shift and its standard error, at least one.
    """
    n = len(logs)
    error = math.sqrt(sum(own**2 for _, own in logs)) / n
    return Shift(math.fsum(mean for mean, _ in logs) / n, error, None, n)


def own_error(low: float, high: float) -> float:
    """Standard error that a 95 % interval of a positive figure stands for, on the logarithmic scale."""
    return math.log(high / low) / (2 * _Z)


def exactly(shift: Shift) -> Shift:
    """The same shift of a quantity that has no noise."""
    return replace(shift, error=0.0, df=None)
