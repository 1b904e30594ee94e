"""One quantity of one arm over a table's seeds, as an array that pairs by place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cnnbench.recorded import blocks_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cnnbench.frame import TrialSet
    from cnnbench.recorded import Block


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
    found = np.full(len(trials.seeds), np.nan)
    for block in blocks(trials, arm):
        if key in block.columns and (not method or block.methods.get(key) == method):
            found[block.seeds] = block.values[:, block.columns[key]]
    return found


def recorded(trials: TrialSet, arm: str) -> set[str]:
    """Keys of all quantities that any of an arm's trials has a number for."""
    return {key for block in blocks(trials, arm) for key in block.columns if block.has(key)}


def blocks(trials: TrialSet, arm: str) -> tuple[Block, ...]:
    """All that an arm's trials have recorded; records are walked through once, whatever is asked of them then."""
    if arm not in trials.blocks:
        trials.blocks[arm] = tuple(blocks_of(trials.by_seed(arm)))
    return trials.blocks[arm]
