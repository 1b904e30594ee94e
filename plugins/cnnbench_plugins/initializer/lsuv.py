"""Weights scaled by what comes out of the layers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Gt

from cnnbench.errors import Unsupported
from cnnbench.lazy import nn, torch
from cnnbench.technique import technique
from cnnbench_plugins.initializer._weights import fill, scale_weight, weight_layers
from cnnbench_plugins.initializer.scaled import orthogonal

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSES = 10
"""Forward passes before giving up. Two are enough where outputs scale with weights: one to scale, one to see."""


def scale_to_unit_variance(model: nn.Module, inputs: torch.Tensor, tolerance: float) -> None:
    """Scale the weights of ``model`` in place until each layer's outputs have a variance of 1.

    A layer is scaled while the forward pass goes through it, so that those behind it already see its new outputs: in
    the order of execution, whatever the order in the model. Of a layer that is called several times the first call
    counts. Left alone are layers that the pass doesn't reach and those whose outputs don't vary at all.

    Args:
        model: its linear and convolution layers have no biases, or biases of 0.
        inputs: a batch for it, [N, C, H, W].
        tolerance: largest distance of a variance from 1.

    Raises:
        Unsupported: a layer's outputs don't follow the scale of its weights.
    """
    names = {layer: name for name, layer in model.named_modules()}
    changed: list[str] = []
    seen: set[Any] = set()

    def scale(layer: Any, _inputs: Any, outputs: torch.Tensor) -> torch.Tensor | None:
        if layer in seen:
            return None
        seen.add(layer)
        variance = outputs.double().var().item()
        if variance == 0 or abs(variance - 1) < tolerance:
            return None
        changed.append(names[layer])
        scale_weight(layer, variance**-0.5)
        scaled: torch.Tensor = outputs * variance**-0.5
        return scaled

    hooks = [layer.register_forward_hook(scale) for layer in weight_layers(model)]
    try:
        with torch.no_grad(), _as_in_training(model):
            for _ in range(PASSES):
                changed.clear()
                seen.clear()
                model(inputs)
                if not changed:
                    return
    finally:
        for hook in hooks:
            hook.remove()
    raise Unsupported(f"{changed[0]}: lsuv can't bring its outputs to variance 1, they don't follow its weights' scale")


@contextmanager
def _as_in_training(model: nn.Module) -> Iterator[None]:
    """Batch statistics in batch norms, nothing dropped elsewhere; modes and buffers are as before afterwards."""
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        for module in modes:
            module.training = hasattr(module, "running_mean")
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for buffer, value in buffers:
            buffer.copy_(value)


@technique("initializer", "lsuv")
class Lsuv:
    """Orthogonal weights, then scaled layer by layer to outputs of variance 1 on training images.

    Layer-sequential unit-variance (Mishkin & Matas 2016, https://arxiv.org/abs/1511.06422, section 3, algorithm 1):
    each linear or convolution layer's weight is ``orthogonal`` at first; then, from the input to the output, W <- W /
    sqrt(Var(y)) until |Var(y) - 1| < tolerance, the variance being that of all outputs y [N, C, H, W] together, of up
    to 256 training images. Default tolerance 0.1, the paper's. Batch norms use the batch's statistics meanwhile, and
    keep their running ones.

    Helps: deep networks without normalization, of any activation: it measures what other initializers derive.
    Known not to help: layers behind which a norm layer rescales the signal anyway.
    """

    tolerance: Annotated[float, Gt(0)] = 0.1

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        """Fill ``model`` with orthogonal weights in place."""
        fill(model, lambda layer: orthogonal(layer, 1.0, generator))

    def calibrate(self, model: nn.Module, inputs: torch.Tensor) -> None:
        """Scale the weights in place, from training images as model inputs [n, C, H, W]."""
        scale_to_unit_variance(model, inputs, self.tolerance)


TECHNIQUES = (Lsuv,)
