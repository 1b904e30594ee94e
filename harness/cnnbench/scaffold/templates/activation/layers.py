"""The layer itself, apart from the technique: it needs torch as soon as it is imported, the technique does not."""

from __future__ import annotations

import torch
from torch import nn


class StarReLU(nn.Module):
    """``scale * max(x, 0)^2 + shift``.

    Args:
        scale: factor of the square.
        shift: added to it.
    """

    def __init__(self, scale: float, shift: float) -> None:
        super().__init__()
        self.scale = scale
        self.shift = shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape in, the same out."""
        return self.scale * x.relu().square() + self.shift

    def extra_repr(self) -> str:
        """Scale and shift, for printing."""
        return f"scale={self.scale:g}, shift={self.shift:g}"
