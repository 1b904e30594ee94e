"""The layer itself, apart from the technique: it needs torch as soon as it is imported, the technique does not."""

from __future__ import annotations

import torch
from torch import nn


class ImageRMSNorm(nn.Module):
    """Divides each sample by its root mean square, then scales and shifts each channel.

    Args:
        channels: C.
        eps: added to the mean square.
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape [N, C, H, W] in and out."""
        mean_square = x.square().mean((1, 2, 3), keepdim=True)
        return x * (mean_square + self.eps).rsqrt() * self.scale[:, None, None] + self.bias[:, None, None]

    def extra_repr(self) -> str:
        """Channels and eps, for printing."""
        return f"{self.scale.numel()}, eps={self.eps:g}"
