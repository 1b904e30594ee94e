"""Latency as a ratio to the reference's, over seeds; and arms that fewer multiply-adds did not make faster."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnbench.quantities import ratio_key
from cnnbench.stats.intervals import Estimate, mean_interval
from cnnbench.types import LatencyOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import ArrayLike

FEWEST_SEEDS = 3
"""With two seeds a t interval is 12.7 standard errors wide to each side and says nothing."""
FEWER = 0.95
"""Multiply-adds below this share of the reference's are fewer; what is above is a rounding of channels."""


@dataclass(frozen=True)
class NotFaster:
    """An arm with fewer multiply-adds than its reference that does not answer sooner.

    Attributes:
        flops: its multiply-adds, as a share of the reference's.
        ratios: its time as a ratio to the reference's by batch size, where the interval reaches 1.
    """

    flops: float
    ratios: Mapping[int, float]


def over_seeds(records: Iterable[Mapping[str, Any]], batch_size: int) -> Estimate | None:
    """An arm's ratio for one batch size.

    From three seeds: the geometric mean of the seeds' ratios with the t interval of their logarithms. From one or two:
    the geometric mean, and the span of the intervals that the sessions themselves gave, which hold the noise of
    measuring and not what differs from one training to the next.

    Args:
        records: the arm's, those that are ok.
        batch_size: images a call.

    Returns:
        None where no record has a ratio, or where one or two seeds have one without an interval.
    """
    ratios: list[float] = []
    ends: list[tuple[float, float] | None] = []
    for record in records:
        ratio = (record.get("metrics") or {}).get(ratio_key(batch_size))
        if isinstance(ratio, int | float) and ratio > 0:
            taken = ((record.get("details") or {}).get("latency") or {}).get(str(batch_size)) or {}
            ratios.append(float(ratio))
            ends.append(tuple(taken["ratio"][1:]) if taken.get("ratio") else None)
    logs = mean_interval(np.log(ratios))
    if logs is None:
        return None
    mean = math.exp(logs.mean)
    if len(ratios) >= FEWEST_SEEDS and logs.low is not None and logs.high is not None:
        return Estimate(mean, math.exp(logs.low), math.exp(logs.high), len(ratios))
    known = [end for end in ends if end is not None]
    if len(known) < len(ends):  # a ratio of a few rounds, with nothing to say how far it can be trusted
        return None
    return Estimate(mean, min(low for low, _ in known), max(high for _, high in known), len(ratios))


def resolution(heading: Mapping[str, Any]) -> float:
    """The relative difference in latency that a run did not try to tell apart, from a record of it."""
    asked = (heading.get("measure") or {}).get("latency") or {}
    return float(asked.get("precision", LatencyOptions.precision))


def not_faster(flops: ArrayLike, reference: ArrayLike, ratios: Mapping[int, Estimate]) -> NotFaster | None:
    """Whether an arm's multiply-adds fell and its latency did not.

    Args:
        flops: the arm's multiply-adds, one value a seed, [n]; not finite where a seed has none.
        reference: the reference's, in the same order of seeds.
        ratios: its time as a ratio to the reference's, by batch size.

    Returns:
        None where the multiply-adds are not known or not fewer, or where every ratio's interval lies below 1.
    """
    arm, base = np.asarray(flops, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    both = np.isfinite(arm) & np.isfinite(base) & (arm > 0) & (base > 0)
    if not both.any():
        return None
    share = float(np.exp(np.mean(np.log(arm[both] / base[both]))))
    slow = {size: ratio.mean for size, ratio in ratios.items() if (ratio.high or ratio.mean) >= 1}
    return NotFaster(share, slow) if share < FEWER and slow else None


def batch_sizes(keys: Iterable[str]) -> list[int]:
    """Batch sizes whose ratio is among the recorded quantities, the smallest first."""
    found = (re.fullmatch(ratio_key(r"(\d+)"), key) for key in keys)
    return sorted(int(match[1]) for match in found if match)
