"""Pooling layers that torch has not. Each computes in float32 at least where powers need it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from cnnbench_plugins.pooling._replace import Pair, Window

SMALLEST = 1e-30
"""Least mean of powers: where it is 0, its root would have no gradient."""


class _Windows(nn.Module):
    """A pool with a window of its own.

    Args:
        window: of the pool that it replaces.
    """

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = window.kernel, window.stride, window.padding
        self.ceil_mode = window.ceil_mode

    def average(self, x: torch.Tensor, stride: Pair | None = None) -> torch.Tensor:
        """Mean over the window's part inside of the image."""
        stride = stride or self.stride
        return F.avg_pool2d(x, self.kernel, stride, self.padding, self.ceil_mode, count_include_pad=False)

    def maximum(self, x: torch.Tensor, stride: Pair | None = None) -> torch.Tensor:
        """Maximum over the window's part inside of the image."""
        return F.max_pool2d(x, self.kernel, stride or self.stride, self.padding, 1, self.ceil_mode)

    def extra_repr(self) -> str:
        """The window, for printing."""
        return f"kernel={self.kernel}, stride={self.stride}, padding={self.padding}"


class MixedPool(_Windows):
    """A learned mixture of maximum and average, one proportion for all channels; half and half at first."""

    def __init__(self, window: Window) -> None:
        super().__init__(window)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to [N, C, H', W']."""
        share = torch.sigmoid(self.gate)
        return (share * self.maximum(x) + (1 - share) * self.average(x)).to(x.dtype)


class PowerPool(_Windows):
    """Power mean over windows: (mean of |x|^p)^(1/p).

    Args:
        window: of the pool that it replaces.
        p: the exponent, or its start.
        learned: whether p is a parameter; negative inputs then count as ``eps`` (GeM), else by their size (Lp).
        eps: least value that is raised to p.
    """

    p: torch.Tensor

    def __init__(self, window: Window, p: float, *, learned: bool, eps: float) -> None:
        super().__init__(window)
        _set_exponent(self, p, learned=learned)
        self.learned, self.eps = learned, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to [N, C, H', W']."""
        powers = (x if self.learned else x.abs()).clamp(min=self.eps).pow(self.p)
        return self.average(powers).clamp(min=SMALLEST).pow(1 / self.p).to(x.dtype)


class AdaptiveGem(nn.Module):
    """Power mean with a learned exponent over the cells of an adaptive pool.

    Args:
        cells: height and width of the output; None keeps the input's.
        p: start of the exponent.
        eps: least value that is raised to p.
    """

    p: torch.Tensor

    def __init__(self, cells: tuple[int | None, int | None], p: float, eps: float) -> None:
        super().__init__()
        self.cells, self.eps = cells, eps
        _set_exponent(self, p, learned=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to [N, C, H', W']."""
        means = F.adaptive_avg_pool2d(x.clamp(min=self.eps).pow(self.p), self.cells)
        return means.clamp(min=SMALLEST).pow(1 / self.p).to(x.dtype)

    def extra_repr(self) -> str:
        """Output size, for printing."""
        return str(self.cells)


def _set_exponent(pool: nn.Module, p: float, *, learned: bool) -> None:
    # Of one element rather than none: a scalar would not lift bfloat16 inputs to its float32.
    value = torch.tensor([float(p)])
    if learned:
        pool.register_parameter("p", nn.Parameter(value))
    else:
        pool.register_buffer("p", value)


class BlurPool(_Windows):
    """A pool without its stride, then a binomial filter with the stride.

    Args:
        window: of the pool that it replaces.
        size: of the filter, pixels.
        maximum: maximum over the windows rather than the average.
    """

    filter: torch.Tensor

    def __init__(self, window: Window, size: int, *, maximum: bool) -> None:
        super().__init__(window)
        self.takes_maximum = maximum
        row = torch.tensor([float(math.comb(size - 1, k)) for k in range(size)])
        self.register_buffer("filter", torch.outer(row, row)[None, None] / row.sum().square())
        before, after = (size - 1) // 2, size // 2
        rows, columns = (after + (stride - 1 if self.ceil_mode else 0) for stride in self.stride)
        self.border = (before, columns, before, rows)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to [N, C, H', W']."""
        x = self.maximum(x, (1, 1)) if self.takes_maximum else self.average(x, (1, 1))
        # Not reflected: that fails on maps of a single pixel.
        x = F.pad(x, self.border, mode="replicate")
        channels = x.shape[1]
        return F.conv2d(x, self.filter.to(x.dtype).expand(channels, -1, -1, -1), stride=self.stride, groups=channels)


class LazyChannelConv2d(nn.LazyConv2d):
    """A convolution to as many channels as it is given; an ``nn.Conv2d`` once it has seen how many."""

    cls_to_become = nn.Conv2d

    def __init__(self, kernel: Pair, stride: Pair, padding: Pair) -> None:
        super().__init__(0, kernel, stride, padding)

    def initialize_parameters(self, input: torch.Tensor, *args: Any, **kwargs: Any) -> None:  # noqa: A002 - torch's
        """Take the number of channels from [N, C, H, W]."""
        self.out_channels = input.shape[1]
        super().initialize_parameters(input, *args, **kwargs)


class SpatialPyramid(nn.Module):
    """Maxima over grids of several sizes, laid end to end.

    Args:
        levels: cells a side of each grid.
        replaced: cells of the pool that it replaces, by which the layer behind was sized.
    """

    def __init__(self, levels: tuple[int, ...], replaced: int) -> None:
        super().__init__()
        self.levels, self.replaced = levels, replaced

    @property
    def cells(self) -> int:
        """Values that each channel becomes."""
        return sum(level**2 for level in self.levels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to [N, C x cells, 1, 1]: a channel's cells are neighbours, level by level."""
        return torch.cat([F.adaptive_max_pool2d(x, level).flatten(2) for level in self.levels], 2).flatten(1)[
            :, :, None, None
        ]

    def extra_repr(self) -> str:
        """Levels, for printing."""
        return str(self.levels)
