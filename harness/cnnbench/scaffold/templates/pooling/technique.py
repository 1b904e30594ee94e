"""Log-sum-exp pooling."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt

from cnnbench import technique
from cnnbench.lazy import nn


@technique("pooling", "template_name")
class Template:
    """Takes a smooth maximum of each channel's map, in place of a global average or maximum.

    Pinheiro & Collobert 2015, https://arxiv.org/abs/1411.6228, section 3.2: x [N, C, H, W] to [N, C, 1, 1],
    y = log(mean over H and W of exp(sharpness * x)) / sharpness. Towards 0 the sharpness makes it the average, towards
    infinity the maximum. Pools over windows are left alone.

    Helps where the object fills a small part of the image: the average drowns it, the maximum trains one position
    alone. Known not to help where objects fill the image.

    Attributes:
        sharpness: how much more large values count.
    """

    # An option is a typed field; its constraint is checked when a suite is read, before anything runs.
    sharpness: Annotated[float, Gt(0)] = 2.0

    def __call__(self, module: nn.Module) -> nn.Module:
        """The layer that stands in for one pool of the model; the same object again leaves it alone."""
        from cnnbench.scaffold.templates.pooling.layers import GlobalLogSumExp

        pools_all = isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d) and module.output_size in (
            1,
            (1, 1),
        )
        return GlobalLogSumExp(self.sharpness) if pools_all else module
