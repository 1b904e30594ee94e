"""Sparse initialization."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from cnnbench import technique
from cnnbench.lazy import nn, torch


@technique("initializer", "template_name")
class Template:
    """Gives each unit a few random input weights and sets its other weights to 0.

    Martens 2010 (ICML, Deep learning via Hessian-free optimization, section 5): of the F = C_in kH kW weights of each
    output channel, k = min(connections, F) at random places are drawn from a normal distribution, and the rest is 0, as
    are the biases. Their variance is 2 / k here, after He et al. 2015, so that ReLU keeps the size of signals.
    Convolutions and linear layers; norms keep what they have.

    Helps networks without norms, whose units start far apart from each other. Known not to help behind batch norm,
    which sets the scale of signals by itself.

    Attributes:
        connections: k, the weights of each unit that are not 0.
    """

    # An option is a typed field; its constraint is checked when a suite is read, before anything runs.
    connections: Annotated[int, Ge(1)] = 15

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        """Set the weights in place, under ``no_grad``. The CPU generator is the only source of randomness."""
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                weight = module.weight
                rows = weight.flatten(1)
                kept = min(self.connections, rows.shape[1])
                places = torch.rand(rows.shape, generator=generator).argsort(1)[:, :kept]
                values = torch.randn(places.shape, generator=generator) * (2 / kept) ** 0.5
                drawn = torch.zeros(rows.shape).scatter_(1, places, values)
                weight.copy_(drawn.view(weight.shape))  # which brings it to the weight's device and dtype
                if module.bias is not None:
                    module.bias.zero_()
