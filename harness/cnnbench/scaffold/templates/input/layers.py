"""The layer itself, apart from the technique: it needs torch as soon as it is imported, the technique does not."""

from __future__ import annotations

import torch
from torch import nn


class ShiftAndScale(nn.Module):
    """(x - centre) / spread, channel by channel.

    Buffers, so that they move to a device and are saved with the model.

    Args:
        centre, spread: one for each channel, [C].
    """

    centre: torch.Tensor
    spread: torch.Tensor

    def __init__(self, centre: torch.Tensor, spread: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre.float()[:, None, None])
        self.register_buffer("spread", spread.float()[:, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Model inputs from float images [N, C, H, W] in 0..1."""
        return (images - self.centre) / self.spread
