"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import nn

from cnnbench.scaffold.templates.strategy.technique import Template
from cnnbench.testing import ConformanceCase
from cnnbench.types import Progress, Trained

if TYPE_CHECKING:
    from cnnbench.slots import TrainingRun


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot strategy keep."""

    technique = Template


class Scripted:
    """A training run whose members reach accuracies that are known beforehand."""

    def __init__(self, *accuracies: float) -> None:
        self.members = [
            Trained(nn.Identity(), [Progress(0, 1, 10, 0.5, 0.5, accuracy, 0.1)]) for accuracy in accuracies
        ]

    def fit(self, *, member: int = 0) -> Trained:
        """The member as it was made."""
        return self.members[member]


def test_the_best_of_all_starts_is_kept() -> None:
    """Which one is the best is known here, as it never is of real training."""
    run = Scripted(0.7, 0.9, 0.8, 0.9)
    kept = Template(starts=4)(cast("TrainingRun", run))
    assert kept.model is run.members[1].model
    assert kept.notes == {"accuracies": [0.7, 0.9, 0.8, 0.9], "kept": 1}
