"""Pools of fixed form over windows: maximum, average, and the power means between them."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from cnnbench.lazy import nn
from cnnbench.technique import technique
from cnnbench_plugins.pooling._replace import window_of


@technique("pooling", "max", waives={"effect": "it is what most networks have"})
class MaxPool:
    """Takes the maximum over each window, in place of whatever a window pool did.

    Ranzato et al. 2007 (CVPR), section 3; y[n, c, i, j] is the largest x[n, c] within the window at (i, j). Window,
    stride, padding and rounding are those of the pool replaced; padding never wins. Max pools stay as they are, global
    (adaptive) pools too: see ``global_max``.

    Helps: keeps what a feature detector found, wherever in the window it was; the usual choice between layers.
    Known not to help: smooth features; a shift by one pixel changes much of the output (see ``blur``).
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """Max pool over the same windows."""
        window = window_of(module)
        if window is None or isinstance(module, nn.MaxPool2d):
            return module
        return nn.MaxPool2d(window.kernel, window.stride, window.padding, ceil_mode=window.ceil_mode)


@technique("pooling", "avg")
class AvgPool:
    """Takes the average over each window, in place of whatever a window pool did.

    LeCun et al. 1998, section II.B, without its trained scale: y[n, c, i, j] is the mean of x[n, c] over the window at
    (i, j). Window, stride, padding and rounding are those of the pool replaced; padding does not count as zeros.
    Average pools stay as they are, global (adaptive) pools too: see ``global_avg``.

    Helps: smooth features; less aliasing than the maximum, at the same cost.
    Known not to help: sparse features after ReLU, which it dilutes (Boureau et al. 2010, ICML); mostly behind the
    maximum in classification.
    """

    def __call__(self, module: nn.Module) -> nn.Module:
        """Average pool over the same windows."""
        window = window_of(module)
        if window is None or isinstance(module, nn.AvgPool2d):
            return module
        return nn.AvgPool2d(window.kernel, window.stride, window.padding, window.ceil_mode, count_include_pad=False)


@technique("pooling", "lp")
class LpPool:
    """Takes the power mean over each window: between the average (p = 1) and the maximum (p large).

    Sermanet et al. 2012, https://arxiv.org/abs/1204.3968, section 2.2, with a uniform window: y = (mean of |x|^p over
    the window)^(1/p). (! A mean, so that p = 1 averages; ``torch.nn.LPPool2d`` sums, which scales the output by
    (kH kW)^(1/p).) Window, stride, padding and rounding are those of the pool replaced; padding does not count as
    zeros. |x| below 1e-6 counts as that, which keeps gradients finite where ReLU left nothing.

    Helps: the paper prefers p = 2 and 4 to average and maximum on street-view digits.
    Known not to help: activations that are negative as often as positive, whose sign it drops; large p overflow.
    """

    p: Annotated[float, Ge(1)] = 2.0

    def __call__(self, module: nn.Module) -> nn.Module:
        """Power mean over the same windows."""
        from cnnbench_plugins.pooling._layers import PowerPool

        window = window_of(module)
        return module if window is None else PowerPool(window, self.p, learned=False, eps=1e-6)


TECHNIQUES = (MaxPool, AvgPool, LpPool)
