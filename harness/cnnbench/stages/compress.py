"""Compression after training: what compressors may use, and their application in order."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any

from torch import nn

from cnnbench.errors import BrokenContract
from cnnbench.options import make
from cnnbench.stages.train import calibration_inputs, fit, recalibrate, validate
from cnnbench.surgery import fold_for_inference
from cnnbench.technique import card_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from cnnbench.seeds import Streams
    from cnnbench.slots import Compressor, Observer
    from cnnbench.stages.build import Builder
    from cnnbench.stages.train import Procedure
    from cnnbench.types import Batch, Choice, Progress


@dataclass(frozen=True)
class Context:
    """What a compressor may use beside the trained model; see ``slots.CompressionContext``.

    Attributes:
        builder: builds models as the arm does.
        how: the arm's training procedure, with the trained model's own input normalization.
        streams: of this compressor.
        trial: the trial's streams, from which its model was built.
        observers: told of every fine-tuning.
        trainings: numbers the trainings, so that each draws anew.
    """

    builder: Builder
    how: Procedure
    streams: Streams
    trial: Streams
    observers: tuple[Observer, ...] = ()
    trainings: Iterator[int] = field(default_factory=count)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.how.splits.num_classes

    @property
    def example(self) -> torch.Tensor:
        """One model input, [1, C, H, W]."""
        return self.calibration(1)

    @cached_property
    def generator(self) -> torch.Generator:
        """CPU generator of this compressor's own stream; it moves on as it is used."""
        return self.streams.generator("compress")

    def calibration(self, count: int) -> torch.Tensor:
        """Training images as model inputs, a fixed random choice of the trial's seed."""
        return calibration_inputs(self.how.splits.train_images, self.how.input, self.streams, count)

    def build(self, model: Choice) -> nn.Module:
        """A fresh model with the arm's surgery and initializer."""
        return self.builder.with_model(model).model(self.streams.member(1))

    def initial(self) -> nn.Module:
        """The arm's model as it was before its training."""
        return self.builder.model(self.trial)

    def make(self, choice: Choice) -> Any:
        """A technique that an option names."""
        return make(choice, self.builder.registry)

    def input(self, choice: Choice) -> nn.Module:
        """An input normalization fitted on the training split."""
        return self.builder.fitted([choice])

    def recalibrate(self, model: nn.Module) -> None:
        """Recompute batch-norm statistics over the training split, in place."""
        recalibrate(model, self.how)

    def train(
        self,
        model: nn.Module,
        *,
        epochs: int,
        learning_rate: float | None = None,
        loss: Callable[[Batch, torch.Tensor], torch.Tensor] | None = None,
        observers: Sequence[Observer] = (),
    ) -> list[Progress]:
        """Train in place with the arm's procedure."""
        how = replace(self.how, epochs=self.builder.limited(epochs))
        if learning_rate is not None:
            optimizer = how.optimizer
            how = replace(how, optimizer=lambda m: _at_rate(optimizer(m), learning_rate))
        streams = self.streams.member(next(self.trainings))
        return fit(model, how, streams, observers=(*self.observers, *observers), loss=loss)

    def validation_accuracy(self, model: nn.Module) -> float:
        """Top-1 accuracy on the validation split; NaN where it is empty."""
        _, accuracy = validate(model, self.how)
        return float("nan") if accuracy is None else accuracy


def _at_rate(optimizer: torch.optim.Optimizer, rate: float) -> torch.optim.Optimizer:
    for group in optimizer.param_groups:
        group["lr"] = rate
    return optimizer


def compress(
    model: nn.Module,
    compressors: Sequence[Compressor],
    builder: Builder,
    how: Procedure,
    streams: Streams,
    observers: Sequence[Any] = (),
) -> nn.Module:
    """Apply compressors one after the other, each to a copy of what the one before it made."""
    for index, compressor in enumerate(compressors):
        # Streams by position: the same compressor twice in a chain draws anew.
        own = replace(streams, family=f"{streams.family}/compress{index}")
        context = Context(builder, how, own, streams, tuple(observers))
        made: object = compressor(copy.deepcopy(model), context)
        if not isinstance(made, nn.Module):
            name = card_of(compressor).name
            raise BrokenContract(f"compressor {name!r} returned {type(made).__name__}, expected an nn.Module")
        model = made
        fold_for_inference(model)  # a student may be another kind of network than the one that was trained
        model.eval()
    return model
