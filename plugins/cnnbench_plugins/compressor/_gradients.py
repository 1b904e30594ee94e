"""First-order saliency: what the loss would change by if a weight became zero, read off one epoch of gradients."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from cnnbench.lazy import nn, torch
from cnnbench.slots import Observer
from cnnbench_plugins.compressor._sparsity import prunable_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnbench.slots import CompressionContext


class _Steps(Observer):
    def __init__(self, look: Callable[[nn.Module], None]) -> None:
        self._look = look

    def after_step(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        self._look(model)


def look_at_gradients(model: nn.Module, context: CompressionContext, look: Callable[[nn.Module], None]) -> None:
    """Call ``look`` with the model whose parameters have their ``grad``, for every batch of one epoch.

    L is the arm's own training loss, under its augmentation and regularizers, in training mode. The model is not
    changed: a copy takes the epoch, at a learning rate of 0, and it is that which is looked at.
    """
    context.train(copy.deepcopy(model), epochs=1, learning_rate=0.0, observers=[_Steps(look)])


def weight_times_gradient(
    model: nn.Module, context: CompressionContext, collect: Callable[[str, torch.Tensor], None]
) -> None:
    """Call ``collect(name, w * dL/dw)`` for every conv and linear weight of every batch of one epoch."""

    def look(copied: nn.Module) -> None:
        for name, weight in prunable_weights(copied).items():
            if weight.grad is not None:
                collect(name, weight.detach() * weight.grad)

    look_at_gradients(model, context, look)


def weight_saliency(model: nn.Module, context: CompressionContext) -> dict[str, torch.Tensor]:
    """Sum over batches of |w * dL/dw|, by layer, in the weights' shapes."""
    totals = {name: torch.zeros_like(weight) for name, weight in prunable_weights(model).items()}

    def add(name: str, product: torch.Tensor) -> None:
        totals[name] += product.abs()

    weight_times_gradient(model, context, add)
    return totals
