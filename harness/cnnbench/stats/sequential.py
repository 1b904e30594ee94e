"""Verdicts while seeds are still being added: looks at the data whose errors are controlled together.

A test at 5 % that is done again after every few seeds is wrong far more often than in 5 % of all runs. Here the looks
are few and fixed beforehand, and each is done at a stricter level, so that the chance of a false call at *any* of them
is what a single test's would be (Jennison and Turnbull, "Group Sequential Methods", 2000).
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from cnnbench.stats.intervals import mean_interval, paired_differences
from cnnbench.stats.looks import Step, p_over_looks, repeated_confidence
from cnnbench.stats.multiplicity import benjamini_hochberg, holm
from cnnbench.stats.paired import p_above
from cnnbench.stats.verdicts import Judgement, Verdict, decide, judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

    from cnnbench.inference import Inference


def judge_sequentially(
    arms: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    looks: Sequence[int],
    better: Literal["higher", "lower"],
    margin: float | None,
    inference: Inference,
    resolution: float = 0.0,
    rng: np.random.Generator,
    exact: bool = False,
) -> dict[str, Judgement]:
    """Judge one family as ``verdicts.judge`` does, where seeds were added look by look to arms that were still open.

    The looks are replayed on the values in the order of the seeds: at each, every arm that is still open and has new
    pairs is tested, p-values are corrected over the whole family, and arms that this decides are closed. What a closed
    arm has beyond its last look is not used. So the same values always give the same verdicts, and those which the
    run decided by.

    **One arm.** Its tests are one-sided, and each gives a sequential p-value (``looks.p_over_looks``), which is never
    too small at whatever look one stops. "Different" takes twice the smaller of its two, "equivalent" the larger of its
    two, as without looks.

    **All arms.** Sequential p-values only fall from look to look, so Holm's procedure on them at every look calls
    nothing that it would not call at the end of all looks: the chance of even one false ``better`` or ``worse`` in the
    family over all arms and looks is at most 5 %, and likewise that of a false ``equivalent`` (group sequential Holm:
    Ye, Li, Liu and Yao, "A group sequential Holm procedure with multiple primary endpoints", Statistics in Medicine 32,
    2013; Maurer and Bretz, "Multiple testing in group sequential trials using graphical approaches", 2013). This holds
    for each quantity, also where another one decided when to stop. ``benjamini-hochberg`` is applied to the same
    p-values.

    Args:
        arms: as in ``judge``, in the order of the seeds; not finite where a seed has none or was not run.
        looks: numbers of seeds at which was looked or would have been, ascending. A pair that is missing is left out of
            its look, whose level stays as planned; an arm without a new pair skips the look.
        better: which direction is an improvement.
        margin: as in ``judge``.
        inference: test and correction; its interval plays no part, see below.
        resolution: as in ``judge``.
        rng: for sign-flip tests of more than 20 pairs.
        exact: as in ``judge``.

    Returns:
        A judgement for each arm, in the order given. ``p`` is the sequential one; corrected p-values are those of the
        look at which the arm was closed. ``difference`` has the repeated confidence interval of that look (Jennison and
        Turnbull, "Interim analyses: the repeated confidence interval approach", 1989), at the level of
        ``looks.repeated_confidence``: it holds the true difference with 95 % whenever one stops, and is wider than one
        that knows of no looks. It is always the t interval: a bootstrap of few seeds, even where it is widened,
        falls short at the levels of looks. ``p_sign_flip`` is that of a fixed number of seeds, without regard to looks.

    Raises:
        ValueError: no looks, or not ascending from 1; what ``judge`` raises.
    """
    if not looks or looks[0] < 1 or any(later <= look for look, later in pairwise(looks)):
        raise ValueError(f"expected ascending numbers of seeds, found looks {list(looks)}")
    inference = replace(inference, interval="t")
    judged: dict[str, Judgement] = {}
    family: dict[str, _Arm] = {}
    for name, (values, reference) in arms.items():
        pair = np.asarray(values)[: looks[-1]], np.asarray(reference)[: looks[-1]]
        differences = paired_differences(*pair)
        if exact and differences.size and np.all(differences == differences[0]):
            one = {name: pair}
            judged |= judge(one, better=better, margin=margin, inference=inference, rng=rng, exact=True)
        else:
            family[name] = _Arm(pair, looks, better, margin, inference, resolution, rng)
    adjust = holm if inference.correction == "holm" else benjamini_hochberg
    for look in looks:
        for name, arm in family.items():
            if name not in judged:
                arm.look(look)
        # An arm that has too few pairs until now takes part with p = 1: a family that grew later would have been
        # corrected too little until then.
        different = adjust([arm.p_different for arm in family.values()])
        alike = [None] * len(family) if margin is None else adjust([arm.p_equivalent for arm in family.values()])
        for (name, arm), p, p_alike in zip(family.items(), different, alike, strict=True):
            if name not in judged:
                verdict = arm.verdict(p, p_alike)
                if verdict != "unresolved" or look == looks[-1]:
                    judged[name] = arm.judgement(verdict, p, p_alike)
    return {name: judged[name] for name in arms}


class _Arm:
    """What the looks at one arm have come to. The arguments are those of ``judge_sequentially``."""

    def __init__(
        self,
        pair: tuple[ArrayLike, ArrayLike],
        looks: Sequence[int],
        better: Literal["higher", "lower"],
        margin: float | None,
        inference: Inference,
        resolution: float,
        rng: np.random.Generator,
    ) -> None:
        self._values, self._reference = (np.asarray(values, dtype=np.float64) for values in pair)
        self._looks = looks
        self._better = better
        self._margin = margin
        self._inference = inference
        self._resolution = resolution
        self._rng = rng
        self._stop = 0  # seeds, of which some may have no pair
        self._differences = np.zeros(0)
        self._lowest: dict[tuple[str, str], float] = {}  # by claim and side, the smallest p / weight over the looks
        self._steps: tuple[Step, ...] = ()  # at which it was tested

    def look(self, stop: int) -> None:
        """Test the seeds up to a look; without a new pair, or with less than two in all, the look is skipped."""
        differences = paired_differences(self._values[:stop], self._reference[:stop])
        if differences.size < 2 or differences.size == self._differences.size:
            return
        self._stop, self._differences = stop, differences
        step = Step(differences.size, stop / self._looks[-1])
        self._steps = (*self._steps, step)
        limits = {"different": 0.0} if self._margin is None else {"different": 0.0, "alike": self._margin}
        above = partial(p_above, test=self._inference.test, resolution=self._resolution, rng=self._rng)
        for claim, limit in limits.items():
            # p_below, with the sign turned.
            for side, p in (("above", above(differences, -limit)), ("below", above(-differences, -limit))):
                lowest = self._lowest.get((claim, side), math.inf)
                self._lowest[claim, side] = min(lowest, p / step.weight)

    @property
    def _all_steps(self) -> tuple[Step, ...]:
        """The steps so far, and those to come if no pair of theirs is missing."""
        done, pairs = self._stop, self._differences.size
        later = (Step(pairs + look - done, look / self._looks[-1]) for look in self._looks if look > done)
        return (*self._steps, *later)

    def _p(self, claim: Literal["different", "alike"]) -> tuple[float, float]:
        """Sequential one-sided p-values of both sides."""
        steps, test = self._all_steps, self._inference.test
        above, below = (p_over_looks(self._lowest[claim, side], steps, test) for side in ("above", "below"))
        return above, below

    @property
    def p_different(self) -> float:
        """Sequential two-sided p of "no difference"; 1 before the first test."""
        return min(1.0, 2 * min(self._p("different"))) if self._steps else 1.0

    @property
    def p_equivalent(self) -> float:
        """Sequential p of "as large as the margin"; 1 before the first test."""
        return max(self._p("alike")) if self._steps else 1.0

    def verdict(self, p_adjusted: float, p_alike: float | None) -> Verdict:
        """What these corrected p-values say at the last look."""
        if not self._steps:
            return "unresolved"
        mean = float(self._differences.mean())
        above, below = self._p("different")
        # The evidence may be that of an earlier look, which corrections let through only now. What has turned since
        # then is left open.
        agrees = mean > 0 if above < below else mean < 0
        if p_alike is not None and self._margin is not None and abs(mean) >= self._margin:
            p_alike = None
        return decide(mean if agrees else 0.0, p_adjusted, p_alike, better=self._better)

    def judgement(self, verdict: Verdict, p_adjusted: float, p_alike: float | None) -> Judgement:
        """The judgement at the last look."""
        stop = self._stop or None  # all, if none was tested
        pair = self._values[:stop], self._reference[:stop]
        fixed = judge({"": pair}, better=self._better, margin=None, inference=self._inference, rng=self._rng)[""]
        if not self._steps:
            return fixed
        confidence = repeated_confidence(self._all_steps, len(self._steps) - 1)
        return replace(
            fixed,
            verdict=verdict,
            difference=mean_interval(self._differences, confidence),
            p=self.p_different,
            p_adjusted=p_adjusted,
            p_equivalence=p_alike,
        )
