"""A network as a user may have written it: functional activations and pools, a residual addition, a reshape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    import torch


class OwnNet(nn.Module):
    """Four convolutions with batch norm; nothing but they and the classifier is a module."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        self.inner = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.inner_norm = nn.BatchNorm2d(16)
        self.outer = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.outer_norm = nn.BatchNorm2d(16)
        self.wide = nn.Conv2d(16, 32, 5, padding=2)
        self.classify = nn.Linear(32, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [N, K] from images [N, C, H, W]."""
        x = F.relu(self.stem_norm(self.stem(x)))
        branch = F.relu(self.inner_norm(self.inner(x)))
        x = F.relu(x + self.outer_norm(self.outer(branch)))
        x = F.relu(self.wide(F.max_pool2d(x, 2)))
        x = F.adaptive_avg_pool2d(x, 1)
        return self.classify(x.view(x.size(0), -1))


def make(image_shape: tuple[int, int, int], num_classes: int) -> OwnNet:
    """For ``model = { name = "import", target = "own_model:make" }``."""
    return OwnNet(image_shape[0], num_classes)
