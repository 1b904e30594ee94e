"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from cnnbench.scaffold.templates.strategy.technique import Template
from cnnbench.testing import ConformanceCase
from cnnbench.types import Progress, Trained

if TYPE_CHECKING:
    from cnnbench.slots import Observer, TrainingRun


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot strategy keep."""

    technique = Template


class Scripted:
    """A training run whose weights are known beforehand: all of them are 2^epoch when an epoch ends."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.recalibrated: list[nn.Module] = []

    def fit(self, *observers: Observer) -> Trained:
        """Go through the epochs without any training."""
        model = nn.Linear(2, 3)
        history = [Progress(epoch, self.epochs, epoch + 1, 0.5, None, None, 0.1) for epoch in range(self.epochs)]
        for progress in history:
            for parameter in model.parameters():
                nn.init.constant_(parameter, 2**progress.epoch)
            for observer in observers:
                observer.after_epoch(model, progress)
        return Trained(model, history)

    def recalibrate(self, model: nn.Module) -> None:
        """Write down what is recalibrated."""
        self.recalibrated.append(model)


def test_weights_are_the_mean_of_the_last_epochs_alone() -> None:
    """What each epoch ended with is known here, as it never is of real training: (4 + 8 + 16) / 3."""
    run = Scripted(epochs=5)
    trained = Template(epochs=3)(cast("TrainingRun", run))
    for parameter in trained.model.parameters():
        torch.testing.assert_close(parameter.detach(), torch.full(parameter.shape, 28 / 3))
    assert run.recalibrated == [trained.model]
    assert trained.notes == {"averaged_epochs": 3}
