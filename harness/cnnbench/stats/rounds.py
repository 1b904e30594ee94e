"""Statistics of timings that were taken in rounds.

In each round every arm has a turn of some samples. Samples of one turn are alike, since the machine's state of that
moment is in all of them; in part so are rounds next to each other. Comparisons are paired by round: what slows a whole
round down cancels in the ratio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from cnnbench.stats.student import t_quantile

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

FEWEST_BLOCKS = 10
"""Rounds are not joined into fewer blocks than these to see how they vary: fewer would tell too little."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of two arms' times, paired by round.

    Attributes:
        median: of the rounds' ratios.
        low, high: ends of the median's 95 % interval; None below 8 rounds.
        n: number of rounds.
    """

    median: float
    low: float | None
    high: float | None
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def turn_medians(samples: ArrayLike, per_round: int) -> NDArray[np.float64]:
    """Median of each round's samples, [rounds].

    Args:
        samples: whole rounds in the order taken, [rounds x per_round].
        per_round: samples in each round.

    Raises:
        ValueError: the last round is not whole.
    """
    return np.median(_by_round(samples, per_round), axis=1)


def median_interval(samples: ArrayLike, per_round: int = 1) -> tuple[float, float] | None:
    """95 % interval of the median of samples that were taken in rounds, whatever their distribution.

    It lies between two order statistics (Woodruff, "Confidence intervals for medians and other position measures",
    JASA 47, 1952). Were the n samples independent, the number of them below the median would be binomial (n, 1/2), and
    the ranks n/2 ± 1.96 sqrt(n)/2 (Conover, "Practical Nonparametric Statistics", 3rd ed., section 3.2). Samples of one
    round are alike, so that number varies more. How much more is seen from how it varies between rounds and, since
    neighbouring rounds may be alike too, between blocks of 2, 4, 8 ... rounds, as long as there are ten blocks
    (Flyvbjerg and Petersen, "Error estimates on averages of correlated data", J. Chem. Phys. 91, 1989). The widest of
    these is taken, with Student's t for the number of blocks.

    Simulated: how often it holds the true median, by rounds x samples a round. The spread between rounds is as large as
    that within, and "lag 0.5" is the correlation of neighbouring rounds. "Binomial" is the interval that takes all
    samples as independent.

    ===========================  ======  ======  =======  ========  =================
    samples                      10 x 5  30 x 5  60 x 10  200 x 10  binomial 200 x 10
    ===========================  ======  ======  =======  ========  =================
    independent                  0.98    0.98    0.98     0.98      0.96
    one in ten much delayed      0.98    0.98    0.98     0.98      0.95
    rounds differ                0.98    0.97    0.97     0.98      0.68
    rounds differ, lag 0.5       0.88    0.90    0.92     0.96      0.45
    rounds differ, lag 0.8       0.68    0.71    0.78     0.93      0.29
    ===========================  ======  ======  =======  ========  =================

    Drift that is slow against the whole session is in no interval that one session can give.

    Args:
        samples: whole rounds in the order taken, [rounds x per_round].
        per_round: samples in each round.

    Returns:
        None where there are too few: below 8 independent samples, or below two rounds of several.

    Raises:
        ValueError: the last round is not whole.
    """
    rounds = _by_round(samples, per_round)
    count = rounds.size
    if count == 0 or (per_round > 1 and len(rounds) < 2):
        return None
    middle = np.median(rounds)
    # How many more than half of each round lie below the median; a sample on it counts half.
    excess = (np.sum(rounds < middle, axis=1) + np.sum(rounds == middle, axis=1) / 2) - per_round / 2
    half = 1.96 * math.sqrt(count) / 2
    width = 1
    while width == 1 or len(rounds) // width >= FEWEST_BLOCKS:
        blocks = len(rounds) // width
        if per_round * width > 1:  # one sample alone is below or above: its variance is known
            sums = np.add.reduceat(excess, np.arange(blocks) * len(rounds) // blocks)
            spread = math.sqrt(blocks / (blocks - 1) * float(np.sum(sums**2)))
            half = max(half, t_quantile(blocks - 1) * spread)
        width *= 2
    rank = math.floor(count / 2 - half)
    if rank < 1:
        return None
    ordered = np.sort(rounds, axis=None)
    return float(ordered[rank - 1]), float(ordered[count - rank])


def paired_ratio(arm: ArrayLike, reference: ArrayLike) -> Ratio:
    """Median of the rounds' ratios ``arm / reference``, with the interval of ``median_interval``.

    Args:
        arm: median of the arm's turn in each round, [rounds]; see ``turn_medians``.
        reference: likewise, of the same rounds.

    Raises:
        ValueError: the arrays differ in length, or are empty.
    """
    left, right = np.asarray(arm, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1 or not left.size:
        raise ValueError(f"expected one value a round from both, found shapes {left.shape} and {right.shape}")
    ratios = left / right
    low, high = median_interval(ratios) or (None, None)
    return Ratio(float(np.median(ratios)), low, high, len(ratios))


def called_different(ratio: Ratio, resolution: float) -> Literal["faster", "slower", "same"]:
    """Whether an arm may be called faster or slower than its reference.

    Only where the whole interval lies outside 1/(1 + resolution) .. 1 + resolution. Medians are sought no finer than
    the suite's ``precision``, and two copies of one network differ by where their weights lie in memory alone: that
    difference is real, repeats as long as the process lives, and says nothing about the network.

    Args:
        ratio: of the arm's time to the reference's.
        resolution: relative difference that does not count; the suite's ``latency.precision``.

    Returns:
        ``same`` also where there are too few rounds to tell.
    """
    if ratio.low is not None and ratio.low > 1 + resolution:
        return "slower"
    if ratio.high is not None and ratio.high < 1 / (1 + resolution):
        return "faster"
    return "same"


def _by_round(samples: ArrayLike, per_round: int) -> NDArray[np.float64]:
    data = np.asarray(samples, dtype=np.float64)
    if data.ndim != 1 or per_round < 1 or data.size % per_round:
        raise ValueError(f"expected whole rounds of {per_round}, found samples of shape {data.shape}")
    return data.reshape(-1, per_round)
