"""Layers that regularizers insert."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import nn


class ChannelDropout(nn.Module):
    """Drop whole channels of feature maps, and single values of what has no height and width.

    Args:
        p: probability that a channel is dropped.

    Attributes:
        channels_last: features of four dimensions are [N, H, W, C].
        drops_at_random: told to the harness, which warns where a batch norm follows.
    """

    drops_at_random: ClassVar[bool] = True

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.channels_last = False

    def extra_repr(self) -> str:
        """The probability, for ``print(model)``."""
        return f"p={self.p}"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [N, C, H, W] or [N, C]."""
        if features.ndim != 4:
            return F.dropout(features, self.p, self.training)
        if self.channels_last:
            return F.dropout2d(features.permute(0, 3, 1, 2), self.p, self.training).permute(0, 2, 3, 1)
        return F.dropout2d(features, self.p, self.training)


class BlockDropout(nn.Module):
    """Drop blocks of neighbouring pixels of feature maps (DropBlock).

    Args:
        p: about the share of pixels dropped in the end.
        block_size: height and width of a block.

    Attributes:
        share: of ``p`` that holds at present, 0 to 1.
        channels_last: features of four dimensions are [N, H, W, C].
        drops_at_random: told to the harness, which warns where a batch norm follows.
    """

    drops_at_random: ClassVar[bool] = True

    def __init__(self, p: float, block_size: int) -> None:
        super().__init__()
        self.p = p
        self.block_size = block_size
        self.share = 1.0
        self.channels_last = False

    def extra_repr(self) -> str:
        """The options, for ``print(model)``."""
        return f"p={self.p}, block_size={self.block_size}"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [N, C, H, W]; others, and maps of one pixel, pass."""
        if not self.training or self.share == 0 or features.ndim != 4:
            return features
        if self.channels_last:
            return self._maps(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self._maps(features)

    def _maps(self, features: torch.Tensor) -> torch.Tensor:
        return features if features.shape[2:].numel() == 1 else self.dropped(features)

    def dropped(self, features: torch.Tensor) -> torch.Tensor:
        """Maps [N, C, H, W] of more than one pixel with blocks dropped."""
        batch, channels, height, width = features.shape
        size = min(self.block_size, height, width)
        corners = (height - size + 1, width - size + 1)
        gamma = self.share * self.p * height * width / (size**2 * corners[0] * corners[1])
        drawn = torch.empty((batch, channels, *corners), device=features.device).bernoulli_(gamma)
        kept = 1 - F.max_pool2d(F.pad(drawn, [size - 1] * 4), size, stride=1)
        # In single precision whatever the features are: a bfloat16 can't count the pixels of a batch.
        return features * (kept * (kept.numel() / kept.sum().clamp(min=1))).to(features.dtype)


class DropConnectLinear(nn.Linear):
    """A linear layer whose weights and biases are dropped at random during training, and scaled to keep their mean.

    Attributes:
        p: probability that a weight is dropped.
        each: whether every sample draws its own mask, or all samples of a batch share one.
    """

    p: float
    each: bool

    @classmethod
    def of(cls, layer: nn.Linear, p: float, *, each: bool) -> DropConnectLinear:
        """The same layer with its own parameters, dropped at random."""
        made = cls(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        made.weight, made.bias = layer.weight, layer.bias
        made.p, made.each = p, each
        return made

    def folded(self) -> nn.Linear:
        """The plain layer, with the same parameters, that this is at inference."""
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        plain.weight, plain.bias = self.weight, self.bias
        return plain

    def extra_repr(self) -> str:
        """The options, for ``print(model)``."""
        return f"{super().extra_repr()}, p={self.p}, each={self.each}"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [N, ..., in] to [N, ..., out]."""
        if not self.training:
            return super().forward(features)
        bias = cast("torch.Tensor | None", self.bias)
        if not self.each:
            dropped = None if bias is None else F.dropout(bias, self.p)
            return F.linear(features, F.dropout(self.weight, self.p), dropped)
        count = len(features)
        weights = F.dropout(self.weight.expand(count, -1, -1), self.p)
        flat = features.reshape(count, -1, self.in_features)
        if bias is None:
            out = torch.bmm(flat, weights.mT)
        else:
            out = torch.baddbmm(F.dropout(bias.expand(count, 1, -1), self.p), flat, weights.mT)
        return out.reshape(*features.shape[:-1], self.out_features)
