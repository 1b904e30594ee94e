"""Records to judgements: which quantity is judged how, and which arms form a family.

A family is all arms of one metric, each against its own reference. The placebo is judged by itself: its difference is
the run's noise and no claim, so it must not make the claims of others harder.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from cnnbench.inference import Inference
from cnnbench.quantities import is_ratio, quantities, ratio_beside, ratio_key, smallest_step
from cnnbench.ratios import FEWEST_SEEDS, resolution
from cnnbench.series import series
from cnnbench.stats.sequential import judge_sequentially
from cnnbench.stats.verdicts import judge, ties

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cnnbench.frame import TrialSet
    from cnnbench.quantities import Quantity
    from cnnbench.stats.verdicts import Judgement

    Pair = tuple[NDArray[np.float64], NDArray[np.float64]]

Kind = Literal["plain", "exact", "timed", "energy", "percentile", "apart", "undirected"]
"""How a quantity is judged: by its values over seeds; as one without noise; by the logarithms of ratios that were
paired by round; by values that were measured on both sides. The last three are not judged: percentiles far out, which
no pairing frees of disturbances; what is taken of trainings, which are not interleaved; what has no better direction.
"""

_APART: Final = frozenset({"train_seconds", "energy_train_j", "co2_train_mg", "prepare_seconds"})
_ENERGY: Final = frozenset({"energy_inference_mj", "co2_inference_ug"})
_TIMED: Final = re.compile(r"latency_b(\d+)_ms|throughput_b(\d+)")
_PERCENTILE: Final = re.compile(r"latency_b\d+_p\d+_ms")
_SEED: Final = 0
"""Of the generator behind bootstraps and Monte Carlo tests: a table rendered again is the same to the last digit."""


T_INTERVAL: Final = "paired t interval"
"""The interval of differences where nothing else is asked for; of those that are not judged, always."""


@dataclass(frozen=True)
class Verdicts:
    """What may be concluded of a table.

    Attributes:
        judgements: by quantity key, then by arm; arms without a value, and quantities that are not judged, are left
            out.
        margins: by quantity key, the difference that would not matter, in the recorded unit; of times relative to the
            reference's (0.02: between 1 / 1.02 and 1.02 times as long). Only of what is judged.
        best: by quantity key, the arms that may be the best, by ``stats.verdicts.ties``; never the placebo.
    """

    judgements: Mapping[str, Mapping[str, Judgement]]
    margins: Mapping[str, float]
    best: Mapping[str, frozenset[str]]


def kind_of(quantity: Quantity) -> Kind:
    """How a quantity is judged."""
    if quantity.better == "neither":
        return "undirected"
    if quantity.key in _APART:
        return "apart"
    if quantity.key in _ENERGY:
        return "energy"
    if _TIMED.fullmatch(quantity.key):
        return "timed"
    if _PERCENTILE.fullmatch(quantity.key):
        return "percentile"
    if quantity.stage == "profile" or quantity.key == "size_served_bytes":
        return "exact"
    return "plain"


def as_judged(quantity: Quantity, judgement: Judgement | None) -> bool:
    """Whether a judgement's difference is that of the values themselves, in the recorded unit.

    It is None where the values have no judgement, and of logarithms where the quantity is a time.
    """
    return judgement is not None and kind_of(quantity) != "timed"


def interval_of(trials: TrialSet) -> str:
    """What the interval of a judged difference is, in words."""
    asked = Inference.from_plain(trials.heading.get("statistics")).interval
    if looks_of(trials):
        return "repeated confidence interval at the arm's last look"
    return T_INTERVAL if asked == "t" else "BCa bootstrap interval"


def verdicts(trials: TrialSet, shown: Sequence[Quantity]) -> Verdicts:
    """The judgements of every quantity that a table shows.

    Args:
        trials: what the table shows.
        shown: its quantities; a latency's judgement stands at the ratio beside it too.
    """
    inference = Inference.from_plain(trials.heading.get("statistics"))
    stated = _stated_margins(trials.heading.get("measure") or {})
    judgements: dict[str, Mapping[str, Judgement]] = {}
    margins: dict[str, float] = {}
    best: dict[str, frozenset[str]] = {}
    for quantity in shown:
        if is_ratio(quantity):  # has that of its latency
            continue
        pairs = {arm: pair for arm in trials.arms if (pair := pair_of(trials, arm, quantity)) is not None}
        if not pairs:
            continue
        margin = _margin(trials, quantity, stated.get(quantity.key))
        judgements[quantity.key] = _judged(trials, quantity, pairs, margin, inference)
        if margin is not None:
            margins[quantity.key] = margin
        best[quantity.key] = _best(trials, quantity, inference)
        if (ratio := ratio_beside(quantity)) is not None:
            judgements[ratio.key] = judgements[quantity.key]
    return Verdicts(judgements, margins, best)


def looks_of(trials: TrialSet) -> tuple[int, ...]:
    """Numbers of seeds at which the run looked to see what is undecided; empty where they were fixed beforehand."""
    return tuple((trials.heading.get("planned") or {}).get("looks") or ())


def levels(trials: TrialSet, arm: str, quantity: Quantity) -> NDArray[np.float64]:
    """What an arm's values are for differences between any two arms, one for each of ``trials.seeds``, [n].

    Of what is sampled in sessions, the logarithm of the ratio to the baseline's, through the arms that it is compared
    with by rounds. Sessions of different seeds are apart in time; a machine that was slower in one of them is in the
    medians, and not in the ratios.

    Returns:
        In the recorded unit, or logarithms; nan where a trial is not ok or has no such value. Logarithms are nan in all
        places where no baseline is in the run.
    """
    if kind_of(quantity) != "timed":
        return series(trials, arm, quantity.key)
    reference = trials.references.get(arm)
    if reference is not None:
        return _log_ratios(trials, arm, quantity) + levels(trials, reference, quantity)
    here = np.isfinite(series(trials, arm, quantity.key)) & (arm == trials.baseline)
    return np.where(here, 0.0, np.nan)


def pair_of(trials: TrialSet, arm: str, quantity: Quantity) -> Pair | None:
    """An arm's values and its reference's, one a seed, nan where missing; None where no seed has both.

    Of times the logarithm of the paired ratio, and zeros.
    """
    reference, kind = trials.references[arm], kind_of(quantity)
    if reference is None or kind in {"percentile", "apart", "undirected"}:
        return None
    if kind == "timed":
        values = _log_ratios(trials, arm, quantity)
        others = np.zeros_like(values)
    else:
        only = "measured" if kind == "energy" else None
        values, others = (series(trials, name, quantity.key, only) for name in (arm, reference))
    return (values, others) if np.isfinite(values - others).any() else None


def _judged(
    trials: TrialSet, quantity: Quantity, pairs: Mapping[str, Pair], margin: float | None, inference: Inference
) -> dict[str, Judgement]:
    assert quantity.better != "neither"
    kind = kind_of(quantity)
    looks = looks_of(trials)
    decide = partial(judge_sequentially, looks=looks) if looks else judge
    found: dict[str, Judgement] = {}
    for placebo in (False, True):
        family = {arm: pair for arm, pair in pairs.items() if (trials.roles[arm] == "placebo") == placebo}
        found |= decide(
            family,
            better=quantity.better,
            margin=math.log1p(margin) if kind == "timed" and margin is not None else margin,
            inference=inference,
            resolution=smallest_step(quantity, trials.records.values()),
            exact=kind == "exact",
            rng=np.random.default_rng(_SEED),
        )
    if kind == "timed":  # the noise of one process is not in the rounds, see ``ratios``
        found = {arm: j if j.n >= FEWEST_SEEDS else replace(j, verdict="unresolved") for arm, j in found.items()}
    return {arm: found[arm] for arm in pairs}


def _best(trials: TrialSet, quantity: Quantity, inference: Inference) -> frozenset[str]:
    """Arms that may be the best of those with values enough to be judged."""
    assert quantity.better != "neither"
    kind = kind_of(quantity)
    if kind == "timed" and trials.baseline is None:
        return frozenset()
    values = {
        arm: series(trials, arm, quantity.key, "measured") if kind == "energy" else levels(trials, arm, quantity)
        for arm in trials.arms
        if trials.roles[arm] != "placebo"
    }
    fewest = FEWEST_SEEDS if kind == "timed" else 1
    values = {arm: own for arm, own in values.items() if np.isfinite(own).sum() >= fewest}
    return ties(
        values,
        better=quantity.better,
        inference=inference,
        resolution=smallest_step(quantity, trials.records.values()),
        exact=kind == "exact",
        rng=np.random.default_rng(_SEED),
    )


def _log_ratios(trials: TrialSet, arm: str, quantity: Quantity) -> NDArray[np.float64]:
    """Logarithms of an arm's time over its reference's, paired by round; of a throughput, the other way round."""
    match = _TIMED.fullmatch(quantity.key)
    assert match is not None
    ratios = series(trials, arm, ratio_key(match[1] or match[2]))
    logs = np.log(ratios, out=np.full_like(ratios, np.nan), where=ratios > 0)
    return logs if match[1] else -logs


def _stated_margins(measure: Mapping[str, Any]) -> dict[str, float]:
    """The suite's margins by quantity key, in the recorded unit."""
    sizes = (measure.get("latency") or {}).get("batch_sizes") or [1]
    margins = measure.get("margin") or {}
    return {q.key: float(margin) for name, margin in margins.items() for q in quantities([name], sizes)}


def _margin(trials: TrialSet, quantity: Quantity, stated: float | None) -> float | None:
    """The margin to judge by. Of times it is a share, and never below what sampling tried to tell apart at all."""
    if kind_of(quantity) != "timed":
        return stated
    least = resolution(trials.heading)
    names = [trials.baseline] if trials.baseline else trials.arms
    first = next(iter(looks_of(trials)), None)  # what a look was judged by must not move with later seeds
    values = np.concatenate([series(trials, name, quantity.key)[:first] for name in names])
    return max(least, stated / float(np.nanmean(values))) if stated and np.isfinite(values).any() else least
