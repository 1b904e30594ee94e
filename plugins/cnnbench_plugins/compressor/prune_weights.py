"""Unstructured pruning: single weights are set to zero and held there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Lt

from cnnbench import technique
from cnnbench.errors import NoEffect
from cnnbench.lazy import nn, torch
from cnnbench.slots import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cnnbench.slots import CompressionContext
    from cnnbench.types import Progress

Scope = Literal["global", "layer"]
PruningSchedule = Literal["oneshot", "gradual"]


def prunable_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of every convolution and linear layer, by module name; biases and norms are never pruned."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    return {name: module.weight for name, module in model.named_modules() if isinstance(module, kinds)}


def smallest(scores: Mapping[str, torch.Tensor], share: float, scope: Scope) -> dict[str, torch.Tensor]:
    """Boolean masks that are False at the lowest scores.

    Args:
        scores: one tensor a layer, any shapes.
        share: share of False entries, 0..1. Their number is exactly ``round(share * n)`` (Python's rounding: halves
            to the even number), with n the entries of all layers together (``global``) or of each layer (``layer``).
        scope: one threshold over all layers, or one for each.

    Returns:
        Masks of the scores' shapes. Of equal scores the first in order of layers and entries goes first.
    """
    if scope == "layer":
        return {name: _mask(score.flatten(), share).view(score.shape) for name, score in scores.items()}
    keep = _mask(torch.cat([score.flatten() for score in scores.values()]), share)
    parts = torch.split(keep, [score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


def _mask(scores: torch.Tensor, share: float) -> torch.Tensor:
    keep = torch.ones_like(scores, dtype=torch.bool)
    keep[torch.argsort(scores, stable=True)[: round(share * scores.numel())]] = False
    return keep


def cubic_sparsity(final: float, done: int, total: int) -> float:
    """Sparsity after ``done`` of ``total`` pruning steps: s_f * (1 - (1 - done/total)^3).

    Zhu & Gupta 2017, equation 1, with initial sparsity 0.
    """
    return final * (1 - (1 - done / total) ** 3)


class _Pruner(Observer):
    """Holds masked weights at zero and, on a gradual schedule, masks more of them before each epoch."""

    def __init__(
        self,
        model: nn.Module,
        score: Callable[[str, torch.Tensor], torch.Tensor],
        sparsities: list[float],
        scope: Scope,
    ) -> None:
        self._weights = prunable_weights(model)
        self._score = score
        self._sparsities = sparsities
        self._scope = scope
        self._masks: dict[str, torch.Tensor] = {}

    def advance(self, position: int) -> None:
        """Prune to the schedule's ``position``-th sparsity; scores must rank what is pruned already lowest."""
        scores = {name: self._score(name, weight.detach()) for name, weight in self._weights.items()}
        self._masks = smallest(scores, self._sparsities[position], self._scope)
        self.enforce()

    def enforce(self) -> None:
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.masked_fill_(~self._masks[name], 0.0)

    def after_step(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        self.enforce()

    def after_epoch(self, model: nn.Module, progress: Progress) -> bool:  # noqa: ARG002
        if progress.epoch + 1 < len(self._sparsities):
            self.advance(progress.epoch + 1)
        return False


def prune(
    model: nn.Module,
    score: Callable[[str, torch.Tensor], torch.Tensor],
    sparsities: list[float],
    scope: Scope,
    train: Callable[[Observer], object] | None,
) -> None:
    """Set the lowest-scored conv and linear weights to zero, in place, and fine-tune the others.

    Args:
        model: changed in place.
        score: from a layer's name and weight to a score of the weight's shape; the lowest are pruned. On a schedule
            of several steps a weight that was pruned must keep scoring below those that were not.
        sparsities: share of zeros before the first, second, ... epoch; the last one stays.
        scope: see ``smallest``.
        train: fine-tunes the model under the observer that it is given; None leaves the weights as they are.

    Raises:
        NoEffect: no weight became zero that was not zero before.
    """
    weights = prunable_weights(model)
    before = sum(int(weight.count_nonzero()) for weight in weights.values())
    if not weights:
        raise NoEffect("pruned nothing: the model has no convolution or linear layer")
    pruner = _Pruner(model, score, sparsities, scope)
    pruner.advance(0)
    if train is not None:
        train(pruner)
        pruner.enforce()
    if sum(int(weight.count_nonzero()) for weight in weights.values()) >= before:
        count = sum(weight.numel() for weight in weights.values())
        raise NoEffect(f"pruned nothing: sparsity {sparsities[-1]} of {count} weights leaves no new zero")


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
    def train(observer: Observer) -> object:
        return context.train(
            model, epochs=technique.epochs, learning_rate=technique.learning_rate, observers=(observer,)
        )

    sparsities = _sparsities(technique.sparsity, technique.schedule, technique.epochs)
    prune(model, score, sparsities, technique.scope, train if technique.epochs else None)
    return model


@technique("compressor", "prune_magnitude")
class PruneMagnitude:
    """Sets the weights of smallest magnitude to zero, then fine-tunes the others.

    Han et al. 2015 (Learning both Weights and Connections, section 3). Over the n weights of all convolution and
    linear layers, round(sparsity * n) with the smallest |w| become 0 and are held at 0 through fine-tuning. Scope
    ``layer`` applies the share to each layer by itself. Schedule ``gradual`` (Zhu & Gupta 2017, equation 1) prunes
    before each of E fine-tuning epochs, to s * (1 - (1 - e/E)^3) before epoch e = 1..E. Fine-tuning at a tenth of the
    usual rate follows Han, section 3.3; the default here is a tenth of SGD's usual 0.1. Sparsity 0.9 is about Han's
    AlexNet. Batch-norm statistics change only through fine-tuning: with ``epochs = 0`` they are the dense network's.

    Helps: the deflated size; an upper bound on what smaller networks could reach.
    Known not to help: latency, FLOPs or memory on dense hardware, none of which the tables credit it with; small
    networks at high sparsity; ``global`` may empty a layer of a network that has one layer much larger than the rest.
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
