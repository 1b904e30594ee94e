"""Norm layers that torch has not."""

from __future__ import annotations

import torch
from torch import nn


class ChannelBias(nn.Module):
    """Adds a learnable bias to each channel of [N, C, H, W]: what is left of a norm without its normalization.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape [N, C, H, W] in and out."""
        return x + self.bias[:, None, None]

    def extra_repr(self) -> str:
        """Channels, for printing."""
        return str(self.bias.numel())
