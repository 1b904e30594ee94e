"""Layers of the small-image networks. Each activation and each norm is a module of its own, used once.

Surgery, pruning and quantization find modules, not functional calls, and quantization's exporter can't take a module
that is called twice.
"""

from __future__ import annotations

import torch
from torch import nn


def conv_unit(in_channels: int, out_channels: int, *, norm: bool = True, stride: int = 1) -> list[nn.Module]:
    """3x3 convolution, batch norm (or a bias in its place) and ReLU; [N, in, H, W] to [N, out, H/stride, W/stride]."""
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=not norm)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU()] if norm else [conv, nn.ReLU()]


class ZeroPadShortcut(nn.Module):
    """He et al. 2016's option A: every other row and column, new channels zero; no parameters."""

    def __init__(self, added_channels: int, stride: int) -> None:
        super().__init__()
        self.added_channels = added_channels
        self.stride = stride

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to [N, C + added, H/stride, W/stride]."""
        kept = images[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(kept, (0, 0, 0, 0, 0, self.added_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with norms; their output and the shortcut's are added before the last ReLU.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        stride: of the first convolution.
        shortcut: module on the skip path; None leaves the block without one.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = shortcut
        self.relu2 = nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[N, in, H, W] to [N, out, H/stride, W/stride]."""
        out: torch.Tensor = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(images)))))
        if self.shortcut is not None:
            out = out + self.shortcut(images)
        activated: torch.Tensor = self.relu2(out)
        return activated
