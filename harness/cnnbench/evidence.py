"""What two runs say of one quantity of one arm: how far it moved, and beside which other arm.

Two runs are not interleaved, so a machine that is slower today moves every timing of the later run. What cancels that
is the paired ratio of an arm to its reference, which each run takes within its own session: the ratio of the two ratios
is free of the machine's drift. It can't be had for the reference itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import fmean, geometric_mean
from typing import TYPE_CHECKING, Any

from cnnbench.quantities import smallest_step
from cnnbench.ratios import FEWEST_SEEDS
from cnnbench.shifts import Shift, exactly, interval_shift, own_error, paired_shift
from cnnbench.tolerances import EXACT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cnnbench.pairs import Pair, Record
    from cnnbench.quantities import Quantity

_LOGARITHMIC = frozenset({"latency", "latency_p95", "latency_p99", "throughput", "prepare_time", "train_time"})


@dataclass(frozen=True)
class Evidence:
    """How one quantity of one arm moved.

    Attributes:
        pairs: the trials that have it before and after.
        before, after: means over these, in the recorded unit; geometric ones where shifts are logarithmic.
        logarithmic: shifts are differences of logarithms, else of values in the recorded unit.
        shift: after minus before.
        beside: the same for the ratio to the reference; None where there is none.
        reference: that arm's name.
        steady: the reference is the same in both runs, so that the ratio's shift is the arm's own.
    """

    pairs: tuple[Pair, ...]
    before: float
    after: float
    logarithmic: bool
    shift: Shift
    beside: Shift | None = None
    reference: str | None = None
    steady: bool = False

    @property
    def deciding(self) -> tuple[Shift, ...]:
        """The shifts that must all be beyond the tolerance, see ``compare``."""
        if self.beside is None:
            return (self.shift,)
        return (self.beside,) if self.steady else (self.shift, self.beside)


def gather(
    pairs: Sequence[Pair], metric: str, quantity: Quantity, arms: Mapping[str, Sequence[Pair]]
) -> Evidence | None:
    """The evidence of trials that may be compared; None where no pair has the quantity on both sides.

    Args:
        pairs: of one arm.
        metric: the quantity's name in suites.
        quantity: what to compare.
        arms: the pairs of every arm, for the reference's.
    """
    have = tuple(p for p in pairs if all(_value(r, quantity) is not None for r in (p.before, p.after)))
    if not have:
        return None
    before = [float(p.before["metrics"][quantity.key]) for p in have]
    after = [float(p.after["metrics"][quantity.key]) for p in have]
    if metric in _LOGARITHMIC and min(*before, *after) > 0:
        shift = _log_shift(have, quantity, before, after)
        found = Evidence(have, geometric_mean(before), geometric_mean(after), True, shift)
        return _beside(found, quantity, arms) if metric in {"latency", "throughput"} else found
    shift = paired_shift(after, before, smallest_step(quantity, [have[0].after])) or Shift(0.0, None, None, 0)
    if metric in EXACT and (shift.error is None or shift.error == 0):
        shift = exactly(shift)
    return Evidence(have, fmean(before), fmean(after), False, shift)


def _value(record: Record, quantity: Quantity) -> float | None:
    value = (record.get("metrics") or {}).get(quantity.key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _log_shift(pairs: Sequence[Pair], quantity: Quantity, before: Sequence[float], after: Sequence[float]) -> Shift:
    logs = [math.log(new / old) for old, new in zip(before, after, strict=True)]
    errors = [(_error(p.before, quantity, "interval_ms"), _error(p.after, quantity, "interval_ms")) for p in pairs]
    return _over_seeds(logs, errors)


def _beside(found: Evidence, quantity: Quantity, arms: Mapping[str, Sequence[Pair]]) -> Evidence:
    """With the shift of the ratio to the reference, where all pairs have one to the same arm, of the same settings."""
    names = {record.get("reference") for pair in found.pairs for record in (pair.before, pair.after)}
    name = names.pop()
    if names or not isinstance(name, str):
        return found
    its = [pair for pair in arms.get(name, ()) if pair.seed in {mine.seed for mine in found.pairs}]
    if any(pair.another_experiment for pair in its):
        return found
    ratios = [[_ratio(record, quantity) for record in (pair.before, pair.after)] for pair in found.pairs]
    if any(ratio <= 0 for both in ratios for ratio in both):
        return found
    sign = -1 if quantity.better == "higher" else 1
    logs = [sign * math.log(after / before) for before, after in ratios]
    errors = [(_error(p.before, quantity, "ratio"), _error(p.after, quantity, "ratio")) for p in found.pairs]
    steady = len(its) == len(found.pairs) and all(pair.same_code(quantity.stage) or pair.same_network for pair in its)
    return replace(found, beside=_over_seeds(logs, errors), reference=name, steady=steady)


def _ratio(record: Record, quantity: Quantity) -> float:
    """The arm's time over its reference's, of the same session; 0 where there is none."""
    return float((_sampling(record, quantity).get("ratio") or [0.0])[0] or 0.0)


def _over_seeds(logs: Sequence[float], errors: Sequence[tuple[float | None, float | None]]) -> Shift:
    """From the spread over seeds where there are enough, else from what each measurement knows of itself."""
    if len(logs) >= FEWEST_SEEDS:
        shift = paired_shift(logs, [0.0] * len(logs))
        assert shift is not None
        return shift
    own = [
        (log, math.hypot(old, new))
        for log, (old, new) in zip(logs, errors, strict=True)
        if old is not None and new is not None
    ]
    if len(own) < len(logs):
        return Shift(math.fsum(logs) / len(logs), None, None, len(logs))
    return interval_shift(own)


def _error(record: Record, quantity: Quantity, of: str) -> float | None:
    """Standard error on the logarithmic scale; only medians, and throughput that is made of them, have one."""
    ends = list(_sampling(record, quantity).get(of) or ())[-2:]
    if "_p9" in quantity.key or len(ends) < 2 or min(ends) <= 0:
        return None
    return own_error(*ends)


def _sampling(record: Record, quantity: Quantity) -> Mapping[str, Any]:
    """What the record says of the samples behind a quantity of one batch size."""
    samplings = (record.get("details") or {}).get("latency") or {}
    batch = quantity.key.partition("_b")[2].partition("_")[0]
    found: Mapping[str, Any] = samplings.get(batch) or {}
    return found
