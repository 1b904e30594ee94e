"""Equivalence: that a difference is small is a claim of its own, and needs its own test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.stats.paired import Test, p_above, p_below

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike


def tost(
    differences: ArrayLike, margin: float, *, test: Test = "t", resolution: float = 0.0, rng: np.random.Generator
) -> float:
    """P-value of "the true mean difference is as large as the margin, or larger", by two one-sided tests.

    The larger of the p-values of "at most -margin" and "at least +margin" (Schuirmann, "A comparison of the two
    one-sided tests procedure and the power approach", 1987). Both must be rejected, and only one of them can be true,
    so neither is corrected for the other. With the t test p is below 5 % exactly where the **90 %** t interval of the
    mean lies wholly between the margins.

    Simulated share of families with a false claim, where every arm differs by just the margin, with Holm's correction,
    20,000 families of 1, 5 and 10 arms that share one baseline, in percent: normal results 4.8, 4.1, 4.5 from 5 seeds,
    5.0, 4.1, 3.8 from 10, 5.0, 4.3, 3.7 from 20; results in steps as large as the spread of their differences 6.2,
    3.6, 1.6 from 5 seeds, 5.1, 3.9, 4.1 from 10, 5.1, 4.2, 3.5 from 20.

    Args:
        differences: one a seed, [n], finite, at least two.
        margin: the difference that would not matter, above 0, in the unit of the differences.
        test: ``t``, or ``sign-flip`` of the differences less the margin, for which 5 % needs five seeds.
        resolution: see ``paired.p_above``.
        rng: for sign-flip tests of more than 20 pairs.

    Raises:
        ValueError: fewer than two differences, or a margin of 0 or less.
    """
    if not margin > 0:
        raise ValueError(f"expected a margin above 0, found {margin}")
    return max(
        p_above(differences, -margin, test=test, resolution=resolution, rng=rng),
        p_below(differences, margin, test=test, resolution=resolution, rng=rng),
    )
