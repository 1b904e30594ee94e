"""Tiny reference networks that hold what techniques act on, and what comes out of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cnnbench.testing.use import Situation


class _Block(nn.Module):
    """A residual block of two convolutions, its shortcut a projection."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        summed: torch.Tensor = self.relu2(branch + self.shortcut(x))
        return summed


class _Functional(nn.Module):
    """Calls half of its operations as functions, which surgery does not reach."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(8, 8, 3, padding="same")
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.linear = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = self.relu(self.norm(self.conv2(x)))
        logits: torch.Tensor = self.linear(F.softsign(self.pool(x)).flatten(1))
        return logits


def _residual(channels: int, classes: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(channels, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), _Block(8, 16)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes)),
    )


def _strided(channels: int, classes: int) -> nn.Module:
    """Strided, dilated and depthwise convolutions, group norm, leaky activations, an average pool with a border."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 8, 3, stride=2, padding=1), nn.GroupNorm(2, 8), nn.LeakyReLU(0.1, inplace=True)),
        *(nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8), nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.ReLU6()),
        *(nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()),
        *(nn.Dropout(0.1), nn.Linear(16, classes)),
    )


NETWORKS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "residual": _residual,
    "strided": _strided,
    "functional": _Functional,
}
"""By the name that a situation's ``layers`` has, from numbers of channels and classes; any image of 7 pixels or more
will do."""
FIRST = "residual"


def network(situation: Situation) -> nn.Module:
    """The reference network of a situation; its weights are drawn from torch's default generator."""
    return NETWORKS[situation.layers or FIRST](situation.channels, situation.classes)


def inputs(situation: Situation) -> torch.Tensor:
    """Model inputs [N, C, H, W] of about mean 0 and variance 1, the same in every run."""
    shape = (situation.batch, situation.channels, situation.height, situation.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def images(situation: Situation, draw: int = 0) -> torch.Tensor:
    """Images as files hold them, uint8 [N, C, H, W]."""
    shape = (situation.batch, situation.channels, situation.height, situation.width)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(draw))


def outputs(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a module computes in eval mode, without gradients."""
    module.eval()
    with torch.no_grad():
        found: torch.Tensor = module(x)
    return found
