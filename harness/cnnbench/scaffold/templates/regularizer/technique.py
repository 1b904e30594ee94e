"""Gradient centralization."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cnnbench import technique
from cnnbench.lazy import nn

if TYPE_CHECKING:
    from cnnbench.lazy import torch


@technique("regularizer", "template_name")
class Template:
    """Takes the mean out of the gradient of each unit's weights.

    Yong et al. 2020, https://arxiv.org/abs/2004.01461, equation 1: for a weight's gradient g [C_out, ...], the mean
    over all but the first dimension is subtracted, g[o] - mean(g[o]). So the mean of each unit's weights stays what it
    was at the start. Biases and norms are left alone.

    Helps training to run more smoothly at nearly no cost. Known not to help adaptive optimizers as much, which rescale
    the gradient afterwards.

    Attributes:
        layers: whose gradients: of all convolutions and linear layers, or of convolutions alone.
    """

    # An option is a typed field; a choice among words is a Literal. Suites are checked before anything runs.
    layers: Literal["all", "convolutions"] = "all"

    # A regularizer has any of eight methods, at least one; ``cnnbench.slots.Regularizer`` lists them.
    def gradients(self, model: nn.Module, generator: torch.Generator, step: int) -> None:
        """Change ``.grad`` in place, after the backward pass of 0-based ``step``."""
        kinds = (nn.Conv2d, nn.Linear) if self.layers == "all" else (nn.Conv2d,)
        for module in model.modules():
            if isinstance(module, kinds) and module.weight.grad is not None:
                gradient = module.weight.grad
                gradient -= gradient.mean(tuple(range(1, gradient.ndim)), keepdim=True)
