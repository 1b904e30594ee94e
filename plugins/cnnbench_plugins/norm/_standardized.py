"""A convolution whose filters are standardized in each call."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

EPS = 1e-5


def standardize(weight: torch.Tensor) -> torch.Tensor:
    """Give each filter of a weight [out, in, kH, kW] mean 0 and variance 1 over its in x kH x kW values."""
    variance, mean = torch.var_mean(weight, dim=(1, 2, 3), correction=0, keepdim=True)
    standard: torch.Tensor = (weight - mean) * torch.rsqrt(variance + EPS)
    return standard


class StandardizedConv2d(nn.Conv2d):
    """A convolution with standardized filters; ``weight`` is what they are computed from."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As ``nn.Conv2d``."""
        y: torch.Tensor = self._conv_forward(x, standardize(self.weight), self.bias)
        return y

    def folded(self) -> nn.Conv2d:
        """The plain convolution with the filters as they stand."""
        plain = nn.Conv2d(**_settings(self))
        plain.weight, plain.bias = nn.Parameter(standardize(self.weight.detach())), self.bias
        return plain


def standardized(conv: nn.Conv2d) -> StandardizedConv2d:
    """The same convolution, its parameters included, with standardized filters."""
    new = StandardizedConv2d(**_settings(conv))
    new.weight, new.bias = conv.weight, conv.bias
    return new


def _settings(conv: nn.Conv2d) -> dict[str, Any]:
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    # Without storage: the weights are put in, and none are drawn.
    return {name: getattr(conv, name) for name in names} | {"bias": conv.bias is not None, "device": "meta"}
