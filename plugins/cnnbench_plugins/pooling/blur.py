"""Anti-aliased pooling."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from cnnbench.lazy import nn
from cnnbench.technique import technique
from cnnbench_plugins.pooling._replace import window_of


@technique("pooling", "blur")
class BlurPool:
    """Pools densely, then shrinks through a low-pass filter, so that small shifts of the image change little.

    Zhang 2019, https://arxiv.org/abs/1904.11486, section 3.2: a max pool of window k and stride s becomes a max pool of
    window k and stride 1, then a binomial filter of ``size`` x ``size`` pixels with stride s, each channel by itself
    ([1 2 1] / 4 along each axis for size 3; the paper tries 2, 3 and 5). The paper puts the filter alone in the place
    of average pools; here the average stays in front of it, so that any window keeps its output size. Padding and
    rounding are those of the pool replaced; edges are repeated for the filter. Pools of stride 1 stay, and so do global
    (adaptive) ones. Strided convolutions, which the paper filters too, are not pools and stay.

    Helps: predictions that do not hang on the pixel where an object lies; often a little accuracy.
    Known not to help: exact positions of small, sharp features; costs a dense pool and a filter.
    """

    size: Annotated[int, Ge(2), Le(7)] = 3

    def __call__(self, module: nn.Module) -> nn.Module:
        """Dense pool and filter with the same output size; an average for averages, else the maximum."""
        from cnnbench_plugins.pooling import _layers

        window = window_of(module)
        if window is None or not window.shrinks:
            return module
        window.require_reach()
        return _layers.BlurPool(window, self.size, maximum=not isinstance(module, nn.AvgPool2d))


TECHNIQUES = (BlurPool,)
