"""Schedules: runs of one, two and a hundred steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.testing.reference import procedure
from cnnbench.testing.use import PLAIN, Situation, Use

if TYPE_CHECKING:
    from cnnbench.testing.subject import Subject

situations = (PLAIN,)
RUNS = (1, 2, 100)
"""Steps in all."""


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:  # noqa: ARG001 - as all slots have it
    """Every factor of every run."""
    schedule = procedure(subject.registry, situation, schedule=technique).schedule
    result = {total: [float(schedule(step, total)) for step in range(total)] for total in RUNS}
    return Use(given={}, before={}, result=result, plain={total: [1.0] * total for total in RUNS})
