"""What the seeds can decide: better, worse, equivalent, or nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from cnnbench.stats.ahead import counted, perhaps_ahead
from cnnbench.stats.effects import effect_size, improvement
from cnnbench.stats.equivalence import tost
from cnnbench.stats.intervals import Estimate, mean_interval, paired_differences
from cnnbench.stats.multiplicity import benjamini_hochberg, holm
from cnnbench.stats.paired import p_above, p_different, sign_above
from cnnbench.stats.resampling import bca_interval, widened
from cnnbench.stats.signflip import sign_flips
from cnnbench.stats.student import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from cnnbench.inference import Inference

LEVEL = 0.05
"""Most chance of even one false claim of a kind in a family."""

Verdict = Literal["better", "worse", "equivalent", "unresolved"]


@dataclass(frozen=True)
class Judgement:
    """One arm against its reference in one quantity.

    Attributes:
        verdict: what may be said.
        difference: mean of arm minus reference, with the 95 % interval that was asked for, not corrected for the number
            of arms; None where they have no seed in common.
        p: two-sided, of the test that decides; None where nothing was tested: below two seeds, or no noise.
        p_adjusted: corrected for the family.
        p_sign_flip: two-sided, of the sign-flip test, not corrected: the check that assumes least.
        p_equivalence: of the equivalence test, corrected for the family; None without a margin as well.
        effect_size: Hedges' g of the paired differences, with the difference's sign; None where there is no spread.
        improvement: share of seeds in which the arm is better, ties half, as ``mean``, with its interval; None for a
            quantity without noise.
        n: pairs of seeds used.
    """

    verdict: Verdict
    difference: Estimate | None
    p: float | None
    p_adjusted: float | None
    p_sign_flip: float | None
    p_equivalence: float | None
    effect_size: float | None
    improvement: Estimate | None
    n: int


def decide(
    difference: float, p_adjusted: float, p_equivalence: float | None, *, better: Literal["higher", "lower"]
) -> Verdict:
    """The verdict from corrected p-values.

    ``equivalent`` comes first. A difference can be both real and shown to be smaller than the margin. The margin, "the
    difference that would not matter", has been named for this very case; the difference's p-value and sign are in the
    judgement all the same. Each kind of claim keeps its own error rate: ``equivalent`` is said where the family's
    equivalence tests reject and nowhere else, ``better`` and ``worse`` at most where its tests of a difference do.

    Args:
        difference: mean of arm minus reference.
        p_adjusted: of "there is no difference", two-sided.
        p_equivalence: of "the difference is as large as the margin"; None without a margin.
        better: which sign is an improvement.
    """
    if p_equivalence is not None and p_equivalence <= LEVEL:
        return "equivalent"
    if p_adjusted <= LEVEL and difference != 0:
        return "better" if (difference > 0) == (better == "higher") else "worse"
    return "unresolved"


def judge(
    arms: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    better: Literal["higher", "lower"],
    margin: float | None,
    inference: Inference,
    resolution: float = 0.0,
    rng: np.random.Generator,
    exact: bool = False,
) -> dict[str, Judgement]:
    """Judge one family: all arms of one quantity, each against its reference, paired by seed.

    An arm is ``better`` or ``worse`` where the two-sided p of the test that ``inference`` names is at most 5 % after
    its correction over the family; ``equivalent`` where the equivalence test's (``equivalence.tost``, by the same kind
    of test, corrected over the family likewise) is at most 5 %, see ``decide``; else ``unresolved``. With ``holm`` the
    chance of even one false ``better`` or ``worse`` in a family is at most 5 %, and likewise that of a false
    ``equivalent``; with ``benjamini-hochberg`` it is the expected share of false ones. Arms that cannot be tested take
    no part in the corrections.

    Simulated share of families with a false ``better`` or ``worse``, where no arm does anything, by paired t and Holm,
    in percent (20,000 families each; 100,000 for normal and rounded results). All arms share one baseline. "Rounded"
    results move in steps as large as the spread of their differences:

    ==========  ===================  ===================  ===================
    seeds       5                    10                   20
    ----------  -------------------  -------------------  -------------------
    arms        1      5      10     1      5      10     1      5      10
    ==========  =====  =====  =====  =====  =====  =====  =====  =====  =====
    normal      5.1    4.7    4.6    5.0    4.4    4.3    4.9    4.4    4.0
    lognormal   2.4    1.5    1.2    3.1    1.6    1.2    3.9    2.0    1.5
    rounded     3.7    1.8    3.3    4.5    4.7    3.9    5.1    4.5    4.3
    skewed      8.5    10.5   11.3   7.0    10.3   11.7   6.8    8.7    9.8
    ==========  =====  =====  =====  =====  =====  =====  =====  =====  =====

    "Skewed" is no technique that does nothing: its differences have the mean zero and are exponential, with half of
    their variance in common. An arm that now and then fails badly, and makes up for it on average, is like that; t and
    sign-flip tests alike (6 to 9 % from 10 seeds on) then say too often that the *mean* differs.

    Args:
        arms: by name, its values and those of its reference, one a seed in the same order, [n] each; not finite where a
            seed has none: that pair is left out.
        better: which direction is an improvement.
        margin: the difference that would not matter, in the unit of the values; None for no claims of equivalence.
        inference: test, interval and correction.
        resolution: the step in which values move, such as one image's share of the test split; 0 for none. Differences
            that agree in all seeds are judged by it, see ``paired.p_above``.
        rng: for sign-flip tests of more than 20 pairs and for bootstrap intervals.
        exact: the quantity has no noise, so that one seed tells all. Differences that agree in all seeds are then taken
            as they are, without a test: equal values are ``equivalent``, with a margin or without. Where they do not
            agree, the quantity follows the training, and is tested like any other.

    Returns:
        A judgement for each arm, in the order given.

    Raises:
        ValueError: an arm's values and its reference's differ in number; a margin is not above 0.
    """
    differences = {name: paired_differences(*values) for name, values in arms.items()}
    testable = {name: row for name, row in differences.items() if row.size > 1 and not (exact and _agree(row))}
    flipped = dict(zip(testable, sign_flips(list(testable.values()), rng), strict=True))
    judged = {
        name: _tested(row, better, margin, inference, resolution, rng, flipped.get(name), exact=exact)
        for name, row in differences.items()
    }
    adjust = holm if inference.correction == "holm" else benjamini_hochberg
    tested = {name: one for name, one in judged.items() if one.p is not None}
    adjusted = dict(zip(tested, adjust([one.p for one in tested.values() if one.p is not None]), strict=True))
    alike = {name: one.p_equivalence for name, one in tested.items() if one.p_equivalence is not None}
    alike = dict(zip(alike, adjust(list(alike.values())), strict=True))
    for name, one in tested.items():
        assert one.difference is not None
        verdict = decide(one.difference.mean, adjusted[name], alike.get(name), better=better)
        judged[name] = replace(one, verdict=verdict, p_adjusted=adjusted[name], p_equivalence=alike.get(name))
    return judged


def _tested(
    differences: NDArray[np.float64],
    better: Literal["higher", "lower"],
    margin: float | None,
    inference: Inference,
    resolution: float,
    rng: np.random.Generator,
    flipped: float | None,
    *,
    exact: bool,
) -> Judgement:
    """All but the family's corrections, and but the verdict where that needs them.

    ``flipped`` is the p of the sign-flip test, None where there is nothing to test.
    """
    n = int(differences.size)
    known = exact and n > 0 and _agree(differences)
    difference = mean_interval(differences)
    if inference.interval == "bca" and n > 1 and not known:
        difference = bca_interval(differences, rng, widened(CONFIDENCE, n))
    wins = None if known else improvement(differences, better)
    found = Judgement("unresolved", difference, None, None, None, None, effect_size(differences), wins, n)
    if known:
        certain = float(differences[0])
        within = abs(certain) <= (margin or 0.0)
        return replace(found, verdict=decide(certain, 0.0, 0.0 if within else None, better=better))
    if flipped is None:
        return found
    p = flipped
    if inference.test == "t":
        p = p_different(differences, test="t", resolution=resolution, rng=rng)
    alike = None
    if margin is not None:
        alike = tost(differences, margin, test=inference.test, resolution=resolution, rng=rng)
    return replace(found, p=p, p_sign_flip=flipped, p_equivalence=alike)


def ties(
    values: Mapping[str, ArrayLike],
    *,
    better: Literal["higher", "lower"],
    inference: Inference,
    resolution: float = 0.0,
    rng: np.random.Generator,
    exact: bool = False,
) -> frozenset[str]:
    """The arms that may be the best: with 95 % confidence the truly best one is among them.

    An arm is out where some other arm has the better mean and is better than it by one of two one-sided paired tests:
    the one that ``inference`` names, or the exact sign test. Each has 5 %, halved for the two and divided by the number
    of other arms; where the seeds are too few for the sign test to reach its share, the first test has both. The truly
    best arm is out by chance in at most 5 % of all runs, since only its own comparisons can put it out falsely, and
    Bonferroni's inequality bounds those. No bias comes from picking the winner by the data that judge it: nothing is
    compared with the arm that *looks* best. This is subset selection (Gupta, "On some multiple decision (selection and
    ranking) rules", 1965), and what Hsu's comparisons with the best (1984) come to for paired arms. The mark says "may
    be the best", and not "equal to each other".

    The sign test is for arms that fail badly in some seeds: they spread so far that no t test puts them out, even where
    another arm is ahead in every seed. It takes the best to be the arm that others beat in no more than half of the
    seeds. That is the arm with the best mean where differences are symmetric.

    How often the truly best arm had no mark in 20,000 simulated runs of normal values, all means equal, which is the
    worst case (standard error at most 0.15 points):

    ====  =====  ==================  ====
    arms  seeds  SD of the best arm  %
    ====  =====  ==================  ====
    10    3      0.1 of the others'  4.8
    30    3      0.1 of the others'  4.7
    30    5      the others'         4.0
    10    9      the others'         2.4
    30    20     0.2 of the others'  2.7
    ====  =====  ==================  ====

    Args:
        values: by arm, one a seed in one order of seeds for all, [n] each; not finite where a seed has none.
        better: which direction is an improvement.
        inference: which test; its correction plays no part here.
        resolution: see ``paired.p_above``.
        rng: for sign-flip tests of more than 20 pairs.
        exact: the quantity has no noise: one seed tells which of two arms is better.

    Returns:
        Names; empty where no arm is out, or less than two can be compared: a mark on all would say nothing. Arms that
        cannot be tested against any other are left aside, neither marked nor counted.

    Raises:
        ValueError: arms differ in the number of their seeds.
    """
    if len(values) < 2:
        return frozenset()
    sign = 1.0 if better == "higher" else -1.0
    if len({np.shape(array) for array in values.values()}) > 1:
        raise ValueError("expected one value a seed from all arms, found different numbers of them")
    data = sign * np.array(list(values.values()), dtype=np.float64)
    fewest = 1 if exact else 2
    comparisons = counted(data, fewest)
    if inference.test == "t":
        likely = perhaps_ahead(data, comparisons, LEVEL, fewest, resolution)
    else:  # signs are drawn one comparison after the other, so that all of them count
        likely = (np.delete(np.arange(len(data)), place) for place in range(len(data)))
    told: list[str] = []  # arms that can be compared with another
    best: list[str] = []
    for name, own, count, others in zip(values, data, comparisons, likely, strict=True):
        if not count:
            continue
        told.append(name)
        pairs = (paired_differences(data[other], own) for other in others)
        tested = (one for one in pairs if one.size >= fewest)
        if not any(_ahead(one, LEVEL / count, inference, resolution, rng, exact=exact) for one in tested):
            best.append(name)
    return frozenset(best) if len(best) < len(told) else frozenset()


def _agree(differences: NDArray[np.float64]) -> bool:
    return bool(np.all(differences == differences[0]))


def _ahead(
    differences: NDArray[np.float64],
    level: float,
    inference: Inference,
    resolution: float,
    rng: np.random.Generator,
    *,
    exact: bool,
) -> bool:
    if exact and _agree(differences):
        return bool(differences[0] > 0)
    if differences.mean() <= 0:
        return False
    p = p_above(differences, test=inference.test, resolution=resolution, rng=rng)
    if 2.0**-differences.size > level / 2:  # no sign test of so few reaches its half
        return p <= level
    return min(p, sign_above(differences)) <= level / 2
