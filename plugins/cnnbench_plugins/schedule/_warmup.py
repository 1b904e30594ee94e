"""Warm-up, shared by the schedules that may open with one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def warm_then(step: int, total_steps: int, warmup: float, rest: Callable[[int, int], float]) -> float:
    """Factor that rises evenly to 1 over the first ``warmup`` share of the steps, then follows ``rest``.

    Args:
        step: 0-based.
        total_steps: of the run.
        warmup: share of the run, 0 to 1; the first of w warm-up steps has factor 1 / w.
        rest: factor for a 0-based step of the remaining steps.
    """
    warm = round(warmup * total_steps)
    return (step + 1) / warm if step < warm else rest(step - warm, total_steps - warm)
