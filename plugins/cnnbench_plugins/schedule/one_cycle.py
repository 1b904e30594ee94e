"""The one-cycle policy."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Gt, Lt

from cnnbench.technique import technique


def anneal(start: float, end: float, share: float) -> float:
    """Half a cosine from ``start`` (share 0) to ``end`` (share 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


@technique("schedule", "one_cycle")
class OneCycle:
    """Up to the full learning rate and down to almost nothing, in two half cosines.

    From 1 / start_divisor at the first step up to 1 after a share ``rise`` of the run, then down to 1 / (start_divisor
    x end_divisor) at the last step (Smith & Topin 2018, with the cosines and the default values of fast.ai and
    PyTorch's OneCycleLR). The momentum is not cycled.

    Helps training with few epochs at a large learning rate. Known to be close to ``cosine`` with a long warm-up, and to
    spend a short run below its full rate.
    """

    rise: Annotated[float, Gt(0), Lt(1)] = 0.3
    start_divisor: Annotated[float, Gt(1)] = 25.0
    end_divisor: Annotated[float, Gt(0)] = 1e4

    def __call__(self, step: int, total_steps: int) -> float:
        """Factor for 0-based ``step``."""
        last = total_steps - 1
        peak = min(max(self.rise * total_steps - 1, 0.0), last)
        start = 1 / self.start_divisor
        if step <= peak:
            return anneal(start, 1.0, step / peak) if peak > 0 else 1.0
        return anneal(1.0, start / self.end_divisor, (step - peak) / (last - peak))


TECHNIQUES = (OneCycle,)
