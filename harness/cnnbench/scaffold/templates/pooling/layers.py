"""The layer itself, apart from the technique: it needs torch as soon as it is imported, the technique does not."""

from __future__ import annotations

import math

import torch
from torch import nn


class GlobalLogSumExp(nn.Module):
    """A smooth maximum of each channel's map.

    Args:
        sharpness: how much more large values count.
    """

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape [N, C, H, W] in, [N, C, 1, 1] out."""
        total = torch.logsumexp(self.sharpness * x, (2, 3), keepdim=True)  # which no large value lets overflow
        return (total - math.log(x.shape[2] * x.shape[3])) / self.sharpness

    def extra_repr(self) -> str:
        """Sharpness, for printing."""
        return f"sharpness={self.sharpness:g}"
