"""Layers that compute in floating point with the values that a coarser format could hold.

Backward, rounding is taken for the identity (Bengio et al. 2013, the straight-through estimator).
"""

from __future__ import annotations

import torch
from torch import nn

from cnnbench_plugins.compressor._uniform import best_range, levels, quantized


def straight_through(rounded: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Exactly ``rounded``, with ``source``'s gradient."""
    return rounded.detach() + (source - source.detach())


class UniformWeight(nn.Module):
    """k-bit integers times a scale, for each output channel or for the whole weight.

    The ranges are those that ``choose`` last found; gradients pass straight through, those of clipped weights too.
    """

    def __init__(self, bits: int, *, per_channel: bool = True, symmetric: bool = True) -> None:
        super().__init__()
        self.bits = bits
        self.per_channel = per_channel
        self.symmetric = symmetric
        self.scale: torch.Tensor | None = None
        self.zero_point: torch.Tensor | None = None

    def choose(self, weight: torch.Tensor) -> None:
        """Take the ranges of least squared error for this weight [outputs, ...]."""
        rows = weight.detach().float().flatten(1) if self.per_channel else weight.detach().float().reshape(1, -1)
        shape = (-1, *[1] * (weight.dim() - 1))
        scale, zero_point = best_range(rows, self.bits, symmetric=self.symmetric)
        self.scale, self.zero_point = scale.view(shape), zero_point.view(shape)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Weights of the same shape; ranges are chosen at the first call."""
        if self.scale is None or self.zero_point is None:
            self.choose(weight)
        assert self.scale is not None
        assert self.zero_point is not None
        rounded = quantized(weight.float(), self.scale, self.zero_point, self.bits, symmetric=self.symmetric)
        return straight_through(rounded.to(weight.dtype), weight)

    def stored(self, weight: torch.Tensor) -> tuple[int, int]:
        """Bits of a weight, and bytes of scales and zero points: four and one byte each."""
        count = len(weight) if self.per_channel else 1
        return self.bits, count * (4 if self.symmetric else 5)


class UniformInput(nn.Module):
    """Activations as k-bit integers: affine, one scale for the tensor, clipped to a calibrated range.

    Gradients pass straight through within the range and are 0 outside. Until ``choose`` is called nothing changes.
    """

    side_bytes = 5  # a scale and a zero point

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        # Plain numbers: a buffer would weigh more in a file than the format's four bytes and one.
        self.scale = 0.0
        self.zero_point = 0

    def choose(self, values: torch.Tensor) -> None:
        """Take the range of least squared error for these activations [n]."""
        scale, zero_point = best_range(values.float().reshape(1, -1), self.bits, symmetric=False)
        self.scale, self.zero_point = scale.item(), int(zero_point.item())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Activations of any shape."""
        if not self.scale:
            return x
        lowest, highest = levels(self.bits, symmetric=False)
        x = x.clamp((lowest - self.zero_point) * self.scale, (highest - self.zero_point) * self.scale)
        rounded = quantized(x.float(), self.scale, self.zero_point, self.bits, symmetric=False)
        return straight_through(rounded.to(x.dtype), x)


class SignWeight(nn.Module):
    """+a or -a, with a the mean of |w| over the filter (Rastegari et al. 2016, equation 6); the sign of 0 is +."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Weights [outputs, ...] of the same shape."""
        values = weight.detach().float()
        scale = values.abs().mean(tuple(range(1, weight.dim())), keepdim=True)
        return straight_through(torch.where(values < 0, -scale, scale).to(weight.dtype), weight)

    def stored(self, weight: torch.Tensor) -> tuple[int, int]:
        """One bit a weight, four bytes a filter."""
        return 1, 4 * len(weight)


class TernaryWeight(nn.Module):
    """-a, 0 or +a: 0 where |w| <= d = 0.7 mean |w|, and a the mean of |w| above d (Li et al. 2016, section 2.2)."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Weights [outputs, ...] of the same shape."""
        values = weight.detach().float()
        axes = tuple(range(1, weight.dim()))
        size = values.abs()
        above = size > 0.7 * size.mean(axes, keepdim=True)
        scale = (size * above).sum(axes, keepdim=True) / above.sum(axes, keepdim=True).clamp(min=1)
        return straight_through((values.sign() * above * scale).to(weight.dtype), weight)

    def stored(self, weight: torch.Tensor) -> tuple[int, int]:
        """Two bits a weight, four bytes a filter."""
        return 2, 4 * len(weight)


class SignInput(nn.Module):
    """Batch norm, then the sign: +1 or -1 (Rastegari et al. 2016, section 3.2 and figure 3).

    The norm comes first because activations behind a ReLU have one sign only. Gradients pass where |x| <= 1.
    """

    side_bytes = 0

    def __init__(self, channels: int, *, last: bool) -> None:
        """Make it for inputs [N, channels, ...], or with ``last`` for inputs [..., channels]."""
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)
        self.last = last
        self.simulated = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Activations of the same shape; without ``simulated`` the norm alone."""
        channels = self.norm.num_features
        flat = x.reshape(-1, channels) if self.last else x.reshape(len(x), channels, -1)
        x = self.norm(flat).reshape(x.shape)
        if not self.simulated:
            return x
        bounded = x.clamp(-1, 1)
        return straight_through(torch.where(bounded < 0, -1.0, 1.0).to(x.dtype), bounded)


class QuantizedLayer(nn.Module):
    """A convolution or linear layer with quantized inputs, quantized weights, or both."""

    def __init__(self, layer: nn.Module, weight: nn.Module | None, inputs: nn.Module | None) -> None:
        super().__init__()
        self.layer = layer
        self.weight_quantizer = weight
        self.input_quantizer = inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the layer makes of ``x``, both quantized."""
        if self.input_quantizer is not None:
            x = self.input_quantizer(x)
        if self.weight_quantizer is None:
            result: torch.Tensor = self.layer(x)
            return result
        weight = self.weight_quantizer(self.layer.weight)
        computed: torch.Tensor = torch.func.functional_call(self.layer, {"weight": weight}, (x,))
        return computed
