"""The weights of the last epochs, averaged."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from cnnbench import technique
from cnnbench.lazy import nn, torch
from cnnbench.slots import Observer, StrategyKind

if TYPE_CHECKING:
    from cnnbench.slots import TrainingRun
    from cnnbench.types import Progress, Trained


@technique("strategy", "template_name")
class Template:
    """Keep the mean of the weights that the last epochs ended with.

    Kaddour 2022 (LAWA), https://arxiv.org/abs/2209.14981, section 2: each parameter becomes the mean of its values at
    the ends of the last k epochs (of all, where there are fewer), and batch norms then measure their statistics anew on
    the training split. The record notes how many epochs were averaged. Memory holds k more copies of the weights;
    training takes no longer.

    Helps where the learning rate is still high at the end, so that weights jump about a good place. Known not to help
    behind a schedule that ends at 0, whose last epochs hardly differ.

    Attributes:
        epochs: k, how many of the last epochs are averaged.
    """

    # Not an option, being a ClassVar: what it decides, so that no other strategy of a list undoes it.
    acts_on: ClassVar[StrategyKind] = "weights"

    # An option is a typed field; its constraint is checked when a suite is read, before anything runs.
    epochs: Annotated[int, Ge(2)] = 3

    def __call__(self, run: TrainingRun) -> Trained:
        """Train, then average. A strategy may also call ``run.fit`` several times, for several networks."""
        ends = LastEpochs(self.epochs)
        trained = run.fit(ends)
        with torch.no_grad():
            for name, parameter in trained.model.named_parameters():
                parameter.copy_(torch.stack([weights[name] for weights in ends.weights]).mean(0))
        run.recalibrate(trained.model)
        return replace(trained, notes={**trained.notes, "averaged_epochs": len(ends.weights)})


class LastEpochs(Observer):
    """Copies the parameters at the end of each epoch and keeps the last ones. The training loop calls it.

    Attributes:
        weights: of each epoch, the parameters by name.
    """

    def __init__(self, count: int) -> None:
        self.weights: deque[dict[str, torch.Tensor]] = deque(maxlen=count)

    def after_epoch(self, model: nn.Module, progress: Progress) -> bool:
        """After each epoch and its validation; True would end training."""
        self.weights.append({name: one.detach().clone() for name, one in model.named_parameters()})
        return False
