"""Unstructured pruning: single weights are set to zero and held there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Lt

from cnnbench import technique
from cnnbench.lazy import nn, torch
from cnnbench_plugins.compressor._finetune import finetune
from cnnbench_plugins.compressor._sparsity import Scope, cubic_sparsity, prunable_weights, prune

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnbench.slots import CompressionContext, Observer

PruningSchedule = Literal["oneshot", "gradual"]


def _sparsities(sparsity: float, schedule: PruningSchedule, epochs: int) -> list[float]:
    if schedule == "oneshot":
        return [sparsity]
    return [cubic_sparsity(sparsity, epoch + 1, epochs) for epoch in range(epochs)]


def _check(schedule: PruningSchedule, epochs: int) -> None:
    if schedule == "gradual" and epochs < 2:
        raise ValueError(f"schedule gradual prunes before each epoch: expected epochs of 2 or more, found {epochs}")


def _run(
    technique: PruneMagnitude | PruneRandom,
    model: nn.Module,
    context: CompressionContext,
    score: Callable[[str, torch.Tensor], torch.Tensor],
) -> nn.Module:
    def train(observer: Observer) -> None:
        finetune(model, context, technique.epochs, technique.learning_rate, observer)

    sparsities = _sparsities(technique.sparsity, technique.schedule, technique.epochs)
    prune(model, score, sparsities, technique.scope, train)
    return model


@technique("compressor", "prune_magnitude")
class PruneMagnitude:
    """Sets the weights of smallest magnitude to zero, then fine-tunes the others.

    Han et al. 2015 (Learning both Weights and Connections, section 3). Over the n weights of all convolution and
    linear layers, round(sparsity * n) with the smallest |w| become 0 and are held at 0 through fine-tuning. Scope
    ``layer`` applies the share to each layer by itself. Schedule ``gradual`` (Zhu & Gupta 2017, equation 1) prunes
    before each of E fine-tuning epochs, to s * (1 - (1 - e/E)^3) before epoch e = 1..E. Fine-tuning at a tenth of the
    usual rate follows Han, section 3.3; the default here is a tenth of SGD's usual 0.1. Sparsity 0.9 is about Han's
    AlexNet. With ``epochs = 0`` batch-norm statistics are recomputed over the training split, and nothing is trained.

    Helps: the deflated size; an upper bound on what smaller networks could reach.
    Known not to help: latency, FLOPs or memory on dense hardware, none of which the tables credit it with; small
    networks at high sparsity; ``global`` may empty a layer of a network that has one layer much larger than the rest.

    Attributes:
        scope: ``global`` compares weights over all layers, ``layer`` within each.
        schedule: ``oneshot`` prunes before the fine-tuning, ``gradual`` more and more before each of its epochs.
        learning_rate: base rate of the fine-tuning, in place of the recipe's.
    """

    sparsity: Annotated[float, Gt(0), Lt(1)] = 0.9
    scope: Scope = "global"
    schedule: PruningSchedule = "oneshot"
    epochs: Annotated[int, Ge(0)] = 2
    learning_rate: Annotated[float, Gt(0)] = 0.01

    def __post_init__(self) -> None:
        _check(self.schedule, self.epochs)

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Prune in place; raises ``NoEffect`` where no weight becomes zero."""
        return _run(self, model, context, lambda _, weight: weight.abs())


@technique("compressor", "prune_random")
class PruneRandom:
    """Sets random weights to zero, then fine-tunes the others: the control for other criteria.

    The procedure and options of ``prune_magnitude``, with scores drawn once, uniformly, from the trial's stream in
    place of |w|. A criterion that does not beat this one at the same sparsity and epochs has found nothing (Blalock et
    al. 2020, What is the State of Neural Network Pruning, section 3).

    Helps: as a control only.
    Known not to help: everything that ``prune_magnitude`` does not help either, and accuracy.

    Attributes:
        scope: ``global`` compares weights over all layers, ``layer`` within each.
        schedule: ``oneshot`` prunes before the fine-tuning, ``gradual`` more and more before each of its epochs.
        learning_rate: base rate of the fine-tuning, in place of the recipe's.
    """

    sparsity: Annotated[float, Gt(0), Lt(1)] = 0.9
    scope: Scope = "global"
    schedule: PruningSchedule = "oneshot"
    epochs: Annotated[int, Ge(0)] = 2
    learning_rate: Annotated[float, Gt(0)] = 0.01

    def __post_init__(self) -> None:
        _check(self.schedule, self.epochs)

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Prune in place; raises ``NoEffect`` where no weight becomes zero."""
        drawn = {
            name: torch.rand(weight.shape, generator=context.generator).to(weight.device)
            for name, weight in prunable_weights(model).items()
        }
        return _run(self, model, context, lambda name, _: drawn[name])


TECHNIQUES = (PruneMagnitude, PruneRandom)
