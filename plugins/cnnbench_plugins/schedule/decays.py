"""Learning rates that fall over the run, perhaps after a warm-up."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from cnnbench.technique import technique
from cnnbench_plugins.schedule._warmup import warm_then


@technique("schedule", "constant")
class Constant:
    """The optimizer's own learning rate throughout.

    Factor 1 at every step. Helps as the arm to compare schedules with, and under weight averaging. Known to end noisier
    than any schedule that decays.
    """

    def __call__(self, step: int, total_steps: int) -> float:  # noqa: ARG002 - the slot's signature
        """Factor for 0-based ``step``."""
        return 1.0


@technique("schedule", "cosine", no_op={"floor": 1.0})
class Cosine:
    """Half a cosine from the full learning rate down to a floor.

    After a linear warm-up over a share ``warmup`` of the run, at step t of the T that remain: floor + (1 - floor)
    (1 + cos(πt/T)) / 2, updated every step (Loshchilov & Hutter 2017, equation 5, without restarts). ``floor`` is a
    share of the full rate.

    Helps nearly every recipe with a fixed budget. Known to waste a run that is stopped early.
    """

    warmup: Annotated[float, Ge(0), Lt(1)] = 0.0
    floor: Annotated[float, Ge(0), Le(1)] = 0.0

    def __call__(self, step: int, total_steps: int) -> float:
        """Factor for 0-based ``step``."""

        def decay(t: int, steps: int) -> float:
            return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * t / steps)) / 2

        return warm_then(step, total_steps, self.warmup, decay)


@technique("schedule", "linear", no_op={"floor": 1.0})
class Linear:
    """A straight line from the full learning rate down to a floor.

    After a linear warm-up over a share ``warmup`` of the run, at step t of the T that remain: 1 - (1 - floor) t / T.
    ``floor`` is a share of the full rate. Li et al. 2020 find it the best for a small budget of epochs.

    Helps short runs. Known to differ little from ``cosine`` on long ones.
    """

    warmup: Annotated[float, Ge(0), Lt(1)] = 0.0
    floor: Annotated[float, Ge(0), Le(1)] = 0.0

    def __call__(self, step: int, total_steps: int) -> float:
        """Factor for 0-based ``step``."""
        return warm_then(step, total_steps, self.warmup, lambda t, steps: 1 - (1 - self.floor) * t / steps)


@technique("schedule", "step")
class Step:
    """Multiply the learning rate by gamma at each milestone.

    Milestones are shares of the run, so that another number of epochs keeps the shape. The defaults divide by 10 at a
    half and at three quarters (He et al. 2016, section 4.2: at 32k and 48k of 64k iterations).

    Helps reproduce older recipes. Known to depend on where the milestones lie more than ``cosine`` on anything.
    """

    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: Annotated[float, Gt(0), Lt(1)] = 0.1

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in zip((0.0, *self.milestones), (*self.milestones, 1.0), strict=True))
        if not self.milestones or not ascending:
            raise ValueError("milestones must be ascending shares of the run, between 0 and 1")

    def __call__(self, step: int, total_steps: int) -> float:
        """Factor for 0-based ``step``."""
        passed = sum(step >= round(share * total_steps) for share in self.milestones)
        return float(self.gamma**passed)


TECHNIQUES = (Constant, Cosine, Linear, Step)
