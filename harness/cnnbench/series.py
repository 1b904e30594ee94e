"""One quantity of one arm over a table's seeds, as an array that pairs by place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cnnbench.frame import TrialSet


def series(trials: TrialSet, arm: str, key: str, method: str | None = None) -> NDArray[np.float64]:
    """An arm's recorded values, one for each of ``trials.seeds``, [n].

    Args:
        trials: where from.
        arm: whose; one that is not among them has no values.
        key: the quantity's.
        method: take only what was obtained so, such as ``measured``.

    Returns:
        In the recorded unit; nan where a trial is not ok, or has no such value.
    """
    return np.array([_value(trials, arm, seed, key, method) for seed in trials.seeds], dtype=np.float64)


def _value(trials: TrialSet, arm: str, seed: int, key: str, method: str | None) -> float:
    record = trials.records.get((arm, seed))
    if record is None or record["status"] != "ok":
        return math.nan
    value = (record.get("metrics") or {}).get(key)
    if not isinstance(value, int | float) or (method and (record.get("methods") or {}).get(key) != method):
        return math.nan
    return float(value)
