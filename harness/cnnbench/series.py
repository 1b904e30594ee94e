"""One quantity of one arm over a table's seeds, as an array that pairs by place."""

from __future__ import annotations

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
    if (key, method) not in trials.arrays:
        trials.arrays[key, method] = _by_arm(trials, key, method)
    found = trials.arrays[key, method].get(arm)
    return np.full(len(trials.seeds), np.nan) if found is None else found.copy()


def _by_arm(trials: TrialSet, key: str, method: str | None) -> dict[str, NDArray[np.float64]]:
    places = {seed: place for place, seed in enumerate(trials.seeds)}
    rows: dict[str, NDArray[np.float64]] = {}
    for (arm, seed), record in trials.records.items():
        if seed not in places or record["status"] != "ok":
            continue
        value = (record.get("metrics") or {}).get(key)
        if isinstance(value, int | float) and (not method or (record.get("methods") or {}).get(key) == method):
            if arm not in rows:
                rows[arm] = np.full(len(trials.seeds), np.nan)
            rows[arm][places[seed]] = value
    return rows
