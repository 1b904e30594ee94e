"""Warm-up, a plateau and a decay."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from cnnbench import technique


@technique("schedule", "template_name")
class Template:
    """Up in a straight line, flat for most of the run, and down to 0 in a straight line.

    Hu et al. 2024, https://arxiv.org/abs/2404.06395, section 4 (warmup-stable-decay), with straight lines as in Hägele
    et al. 2024, https://arxiv.org/abs/2405.18392: at step t of T the factor is the least of 1, (t + 1) / (warmup T) and
    (T - t) / (decay T).

    Helps where one does not know beforehand how long to train: the plateau can be stopped anywhere and decayed from
    there. Known not to help where the budget is fixed, for which cosine does about as well.

    Attributes:
        warmup: share of the run in which the rate goes up.
        decay: share of the run in which it goes down.
    """

    # Options are typed fields. Each one's constraints are checked when a suite is read, before anything runs ...
    warmup: Annotated[float, Ge(0), Le(1)] = 0.05
    decay: Annotated[float, Ge(0), Le(1)] = 0.3

    def __post_init__(self) -> None:
        """... and here what has to hold between them: the text becomes a line among the suite's mistakes."""
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup and decay are shares of one run, got {self.warmup:g} + {self.decay:g}")

    def __call__(self, step: int, total_steps: int) -> float:
        """Factor of the optimizer's own learning rate for 0-based ``step``."""
        up = (step + 1) / (self.warmup * total_steps) if self.warmup else 1.0
        down = (total_steps - step) / (self.decay * total_steps) if self.decay else 1.0
        return min(1.0, up, down)
