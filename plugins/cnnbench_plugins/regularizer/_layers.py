"""Layers that regularizers insert."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class ChannelDropout(nn.Module):
    """Drop whole channels of feature maps, and single values of what has no height and width.

    Args:
        p: probability that a channel is dropped.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def extra_repr(self) -> str:
        """The probability, for ``print(model)``."""
        return f"p={self.p}"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [N, C, H, W] or [N, C]."""
        drop = F.dropout2d if features.ndim == 4 else F.dropout
        return drop(features, self.p, self.training)
