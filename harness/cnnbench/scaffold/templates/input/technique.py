"""Input normalization by quantiles."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from cnnbench import technique
from cnnbench.lazy import nn, torch


@technique("input", "template_name")
class Template:
    """Each channel minus its median, over the distance between two of its quantiles.

    The robust counterpart of mean and standard deviation (Huber 1981, Robust Statistics, chapter 5): with the quantiles
    q of the channel over all pixels of the training images, x' = (x - q(1/2)) / (q(high) - q(low)), x [N, C, H, W] in
    0..1. A channel whose two quantiles are the same is only shifted.

    Helps where a few extreme pixels decide mean and standard deviation. Known not to help where half of the pixels and
    more are one blank value, which both quantiles then are.

    Attributes:
        low, high: which quantiles; the defaults make it the interquartile range.
    """

    # Options are typed fields. Each one's constraints are checked when a suite is read, before anything runs ...
    low: Annotated[float, Ge(0), Le(1)] = 0.25
    high: Annotated[float, Ge(0), Le(1)] = 0.75

    def __post_init__(self) -> None:
        """... and here what has to hold between them: the text becomes a line among the suite's mistakes."""
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")

    def __call__(self, images: torch.Tensor) -> nn.Module:
        """Fit to the training images, uint8 [N, C, H, W]."""
        from cnnbench.scaffold.templates.input.layers import ShiftAndScale

        values = images.movedim(1, 0).flatten(1).cpu().numpy()
        low, median, high = np.quantile(values, (self.low, 0.5, self.high), axis=1) / 255
        spread = np.where(high > low, high - low, 1)
        return ShiftAndScale(torch.from_numpy(median), torch.from_numpy(spread))
