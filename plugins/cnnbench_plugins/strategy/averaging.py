"""Averages of the weights along the run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Gt, Le, Lt

from cnnbench.lazy import torch
from cnnbench.slots import Observer, StrategyKind
from cnnbench.technique import technique

if TYPE_CHECKING:
    from cnnbench.lazy import nn
    from cnnbench.slots import Schedule, TrainingRun
    from cnnbench.types import Progress, Trained


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
    decays to 0.
    """

    acts_on: ClassVar[StrategyKind] = "weights"

    decay: Annotated[float, Gt(0), Lt(1)] = 0.999

    def __call__(self, run: TrainingRun) -> Trained:
        """Train, then put the averages in place of the weights."""
        observer = MovingAverage(self.decay)
        trained = run.fit(observer)
        put(observer.averages, trained.model)
        run.recalibrate(trained.model)
        return trained


class EqualAverage(Observer):
    """Mean of the parameters at the ends of the epochs from ``start`` on, and at its beginning.

    Attributes:
        start: 0-based epoch; where training has no such epoch, nothing is averaged.
        averages: one for each parameter, in the model's order; empty before ``start``.
        count: how many weights are in the mean.
    """

    def __init__(self, start: int) -> None:
        self.start = start
        self.averages: list[torch.Tensor] = []
        self.count = 0

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:  # noqa: ARG002 - the loop's signature
        """Take in the weights from which the averaging starts."""
        if epoch == self.start:
            self._take(model)

    def after_epoch(self, model: nn.Module, progress: Progress) -> bool:
        """Take in the weights that the epoch ended with."""
        if progress.epoch >= self.start:
            self._take(model)
        return False

    def _take(self, model: nn.Module) -> None:
        self.count += 1
        with torch.no_grad():
            if self.count == 1:
                self.averages = [parameter.detach().clone() for parameter in model.parameters()]
                return
            for average, parameter in zip(self.averages, model.parameters(), strict=True):
                average.lerp_(parameter, 1 / self.count)


def put(averages: list[torch.Tensor], model: nn.Module) -> None:
    """Set the model's parameters, in its order, in place."""
    with torch.no_grad():
        for parameter, average in zip(model.parameters(), averages, strict=True):
            parameter.copy_(average)


def then_constant(schedule: Schedule, start: int, epochs: int, factor: float) -> Schedule:
    """``schedule`` before 0-based epoch ``start`` of ``epochs``, the constant ``factor`` from there on."""

    def combined(step: int, total_steps: int) -> float:
        return schedule(step, total_steps) if step < start * total_steps // epochs else factor

    return combined


@technique("strategy", "swa")
class Swa:
    """Keep the learning rate up at the end of training and average the weights that it visits.

    Up to a share ``start`` of the epochs the recipe's schedule holds, without being finished; then the rate is
    constant at ``factor`` of the full one, and the plain mean is taken of the weights from which this phase starts and
    of those at the end of each of its epochs: w_swa <- (n w_swa + w) / (n + 1) (Izmailov et al. 2018, algorithm 1 with
    a constant rate and a cycle of one epoch). At the end the mean replaces the weights, and batch-norm statistics are
    taken anew on the training split, without which the averaged network would be worthless (section 3.2). The
    defaults are the paper's: three quarters of the budget (section 4.1), and 0.05 after an initial 0.1 for its residual
    networks on CIFAR. Validation during training sees the raw weights. The record notes ``averaged``, the number of
    weights in the mean.

    Helps networks that would otherwise end in a sharp minimum, at the cost of one pass over the data. Known to gain
    little on short budgets, whose weights are still on their way, and where the constant rate is too small to move or
    too large to stay.
    """

    acts_on: ClassVar[StrategyKind] = "weights"

    start: Annotated[float, Gt(0), Lt(1)] = 0.75
    factor: Annotated[float, Gt(0), Le(1)] = 0.5

    def __call__(self, run: TrainingRun) -> Trained:
        """Train, then put the mean in place of the weights."""
        first = max(1, min(run.epochs - 1, round(self.start * run.epochs)))
        observer = EqualAverage(first)
        trained = run.fit(observer, schedule=then_constant(run.schedule, first, run.epochs, self.factor))
        if not observer.averages:
            return replace(trained, remarks=[*trained.remarks, "swa: one epoch leaves nothing to average"])
        put(observer.averages, trained.model)
        run.recalibrate(trained.model)
        return replace(trained, notes={**trained.notes, "averaged": observer.count})


TECHNIQUES = (Ema, Swa)
