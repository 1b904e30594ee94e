"""A network that computes in 16 bits, called with and answering in 32."""

from __future__ import annotations

import torch
from torch import nn


class HalfModel(nn.Module):
    """Casts images, runs the network, and casts logits back."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, K], fp32, from model inputs [N, C, H, W]."""
        logits: torch.Tensor = self.network(images.to(self.dtype))
        return logits.float()
