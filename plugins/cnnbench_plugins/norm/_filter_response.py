"""Filter response normalization and its thresholded linear unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Collection

FIXED_EPS = 1e-6


class FilterResponseNorm(nn.Module):
    """Divides each channel of each sample by the root of its mean square, then scales and shifts.

    Args:
        channels: C of [N, C, H, W].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = nn.Parameter(torch.tensor(1e-4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape [N, C, H, W] in and out."""
        power = x.square().mean((2, 3), keepdim=True, dtype=self.weight.dtype)
        scale = torch.rsqrt(power + FIXED_EPS + self.eps.abs()) * self.weight[:, None, None]
        return (x * scale + self.bias[:, None, None]).to(x.dtype)

    def extra_repr(self) -> str:
        """Channels, for printing."""
        return str(self.weight.numel())


class ThresholdedLinearUnit(nn.Module):
    """max(x, t) with a learned threshold t for each channel of [N, C, H, W], starting at 0.

    Args:
        widths: every C that the module meets; one that the model calls in several places may meet more than one, and
            then has thresholds for each.
    """

    def __init__(self, widths: Collection[int]) -> None:
        super().__init__()
        self.widths = sorted(widths)
        self.thresholds = nn.ParameterList(torch.zeros(width) for width in self.widths)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape [N, C, H, W] in and out."""
        index = 0 if len(self.widths) == 1 else self.widths.index(x.shape[1])
        return torch.maximum(x, self.thresholds[index][:, None, None].to(x.dtype))

    def extra_repr(self) -> str:
        """Channels, for printing."""
        return ", ".join(map(str, self.widths))
