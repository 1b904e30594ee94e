"""Masks over single weights, and observers that hold masked weights at zero through training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cnnbench.errors import NoEffect
from cnnbench.lazy import nn, torch
from cnnbench.slots import Observer
from cnnbench_plugins.compressor._changeable import check_changeable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cnnbench.types import Progress

Scope = Literal["global", "layer"]


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
    count = round(share * scores.numel())
    if count == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    # Selection, not sorting: a network has a hundred million weights.
    threshold = scores.kthvalue(count).values
    keep = scores >= threshold
    ties = (scores == threshold).nonzero().flatten()
    keep[ties[: count - int((scores < threshold).sum())]] = False
    return keep


def cubic_sparsity(final: float, done: int, total: int) -> float:
    """Sparsity after ``done`` of ``total`` pruning steps: s_f * (1 - (1 - done/total)^3).

    Zhu & Gupta 2017, equation 1, with initial sparsity 0.
    """
    return final * (1 - (1 - done / total) ** 3)


class Held(Observer):
    """Holds weights at zero wherever their mask, by module name, is False."""

    def __init__(self, model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
        self.weights = prunable_weights(model)
        self.masks = dict(masks)

    def enforce(self) -> None:
        """Set masked weights to zero; layers without a mask stay as they are."""
        with torch.no_grad():
            for name, mask in self.masks.items():
                self.weights[name].masked_fill_(~mask, 0.0)

    def after_step(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Hold them through an optimizer's step, which momentum and weight decay take part in."""
        self.enforce()


class _Pruner(Held):
    """Masks more weights before each epoch of a schedule."""

    def __init__(
        self,
        model: nn.Module,
        score: Callable[[str, torch.Tensor], torch.Tensor],
        sparsities: list[float],
        scope: Scope,
    ) -> None:
        super().__init__(model, {})
        self._score = score
        self._sparsities = sparsities
        self._scope = scope

    def advance(self, position: int) -> None:
        """Prune to the schedule's ``position``-th sparsity; scores must rank what is pruned already lowest."""
        scores = {name: self._score(name, weight.detach()) for name, weight in self.weights.items()}
        self.masks = smallest(scores, self._sparsities[position], self._scope)
        self.enforce()

    def after_epoch(self, model: nn.Module, progress: Progress) -> bool:  # noqa: ARG002
        if progress.epoch + 1 < len(self._sparsities):
            self.advance(progress.epoch + 1)
        return False


def nonzeros(model: nn.Module) -> int:
    """Number of non-zero weights of convolutions and linear layers.

    Raises:
        NoEffect: the model has no such layer.
        Unsupported: it is an int8 graph.
    """
    check_changeable(model)
    weights = prunable_weights(model).values()
    if not weights:
        raise NoEffect("pruned nothing: the model has no convolution or linear layer")
    return sum(int(weight.count_nonzero()) for weight in weights)


def check_pruned(model: nn.Module, before: int, sparsity: float) -> None:
    """Raise ``NoEffect`` unless fewer than ``before`` weights are left."""
    if nonzeros(model) >= before:
        count = sum(weight.numel() for weight in prunable_weights(model).values())
        raise NoEffect(f"pruned nothing: sparsity {sparsity} of {count} weights leaves no new zero")


def prune(
    model: nn.Module,
    score: Callable[[str, torch.Tensor], torch.Tensor],
    sparsities: list[float],
    scope: Scope,
    train: Callable[[Observer], None],
) -> None:
    """Set the lowest-scored conv and linear weights to zero, in place, and fine-tune the others.

    Args:
        model: changed in place.
        score: from a layer's name and weight to a score of the weight's shape; the lowest are pruned. On a schedule
            of several steps a weight that was pruned must keep scoring below those that were not.
        sparsities: share of zeros before the first, second, ... epoch; the last one stays.
        scope: see ``smallest``.
        train: fine-tunes the model under the observer that it is given, or leaves its weights as they are.

    Raises:
        NoEffect: no weight became zero that was not zero before.
    """
    before = nonzeros(model)
    pruner = _Pruner(model, score, sparsities, scope)
    pruner.advance(0)
    train(pruner)
    check_pruned(model, before, sparsities[-1])
