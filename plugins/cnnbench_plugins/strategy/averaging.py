"""Averages of the weights along the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt, Lt

from cnnbench.lazy import torch
from cnnbench.slots import Observer
from cnnbench.technique import technique

if TYPE_CHECKING:
    from cnnbench.lazy import nn
    from cnnbench.slots import TrainingRun
    from cnnbench.types import Trained


class MovingAverage(Observer):
    """Exponential moving average of the parameters.

    Attributes:
        averages: one for each parameter, in the model's order; empty before the first step.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.averages: list[torch.Tensor] = []

    def after_step(self, model: nn.Module, step: int) -> None:
        """Move the averages towards the parameters."""
        with torch.no_grad():
            if not self.averages:
                self.averages = [parameter.detach().clone() for parameter in model.parameters()]
                return
            share = 1 - min(self.decay, (1 + step) / (10 + step))
            for average, parameter in zip(self.averages, model.parameters(), strict=True):
                average.lerp_(parameter, share)


@technique("strategy", "ema")
class Ema:
    """Keep an exponential moving average of the weights and evaluate that.

    After each step a <- d a + (1 - d) w with d = min(decay, (1 + step) / (10 + step)), so that a short run does not
    stay at its first weights (Polyak & Juditsky 1992 average; Tarvainen & Valpola 2017 and TensorFlow's
    ExponentialMovingAverage use this form). At the end the averages replace the weights, and batch-norm statistics are
    taken anew on the training split. Validation during training still sees the raw weights.

    Helps with constant or large learning rates, whose last steps are noisy. Known to gain little after a schedule that
    decays to 0. Of several strategies the first in the list has the last word on the weights.
    """

    decay: Annotated[float, Gt(0), Lt(1)] = 0.999

    def __call__(self, run: TrainingRun) -> Trained:
        """Train, then put the averages in place of the weights."""
        observer = MovingAverage(self.decay)
        trained = run.fit(observer)
        with torch.no_grad():
            for parameter, average in zip(trained.model.parameters(), observer.averages, strict=True):
                parameter.copy_(average)
        run.recalibrate(trained.model)
        return trained


TECHNIQUES = (Ema,)
