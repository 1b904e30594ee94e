"""Layers that architecture techniques insert."""

from __future__ import annotations

import torch
from torch import nn


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the means of all channels (Hu et al. 2018, equations 2 to 4).

    Args:
        channels: C.
        hidden: units between the two layers, C / r in the paper.
        bias: give both layers biases.
    """

    def __init__(self, channels: int, hidden: int, *, bias: bool) -> None:
        super().__init__()
        # 1x1 convolutions of [N, C, 1, 1] are the paper's linear layers, and pruning can follow them.
        self.reduce = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.sigmoid = nn.Sigmoid()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Shape [N, C, H, W] in and out."""
        means = features.mean((2, 3), keepdim=True)
        gate: torch.Tensor = self.sigmoid(self.expand(self.relu(self.reduce(means))))
        return features * gate
