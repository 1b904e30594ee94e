"""StarReLU: the square of ReLU, scaled and shifted."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt

from cnnbench import technique
from cnnbench.lazy import nn


@technique("activation", "template_name")
class Template:
    """The square of ReLU, scaled and shifted to mean 0 and variance 1.

    Yu et al. 2022, https://arxiv.org/abs/2210.13452, section 3.1: y = scale * max(x, 0)^2 + shift, elementwise. Where x
    is standard normal, max(x, 0)^2 has mean 1/2 and variance 5/4, hence the defaults 1 / sqrt(5/4) and
    -1/2 / sqrt(5/4). The paper learns both; here they are fixed, so that parameters stay as many as they were.

    Helps as a cheap stand-in for GELU behind a norm. Known not to help without one: squares of large inputs let
    training diverge.

    Attributes:
        scale: factor of the square.
        shift: added to it.
    """

    # An option is a typed field; its constraint is checked when a suite is read, before anything runs.
    scale: Annotated[float, Gt(0)] = 0.8944
    shift: float = -0.4472

    def __call__(self, module: nn.Module) -> nn.Module:
        """The layer that stands in for one activation of the model; ``module`` again would leave it alone."""
        from cnnbench.scaffold.templates.activation.layers import StarReLU

        return StarReLU(self.scale, self.shift)
