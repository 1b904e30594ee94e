"""What follows a change of weights: fine-tuning, or at the least new batch-norm statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnnbench.lazy import nn
    from cnnbench.slots import CompressionContext, Observer


def finetune(
    model: nn.Module, context: CompressionContext, epochs: int, learning_rate: float | None, *observers: Observer
) -> None:
    """Train a compressed model in place; with 0 epochs, recompute its batch-norm statistics alone.

    The statistics that a model brings are those of the features before the change, so that without either even a mild
    compression can look ruinous.
    """
    if epochs:
        context.train(model, epochs=epochs, learning_rate=learning_rate, observers=observers)
    else:
        context.recalibrate(model)
