"""The layer itself, apart from the technique: it needs torch as soon as it is imported, the technique does not."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class CoordConv(nn.Module):
    """A convolution plus one of its pixels' coordinates.

    Args:
        conv: the convolution, which is kept.
        radius: whether the distance from the centre is a coordinate too.
    """

    def __init__(self, conv: nn.Conv2d, *, radius: bool) -> None:
        super().__init__()
        self.conv = conv
        self.radius = radius
        same: Any = {name: getattr(conv, name) for name in ("kernel_size", "stride", "padding", "dilation")}
        self.where = nn.Conv2d(3 if radius else 2, conv.out_channels, bias=False, **same)
        nn.init.zeros_(self.where.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape [N, C, H, W] in, the convolution's own out."""
        height, width = x.shape[-2:]
        rows = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype)[:, None].expand(height, width)
        columns = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype).expand(height, width)
        coordinates = [rows, columns]
        if self.radius:
            coordinates.append((rows.square() + columns.square()).sqrt())
        found: torch.Tensor = self.conv(x) + self.where(torch.stack(coordinates)[None])
        return found
