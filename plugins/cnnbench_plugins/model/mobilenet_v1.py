"""MobileNetV1."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path  # noqa: TC003 - read at run time
from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt

from cnnbench.lazy import nn
from cnnbench.technique import technique
from cnnbench_plugins import _state_file
from cnnbench_plugins.model._adapt import is_small, load_weights
from cnnbench_plugins.model._probe import check_logits

if TYPE_CHECKING:
    from cnnbench.lazy import torch

# Output channels and stride of the 13 depthwise-separable blocks (table 1).
_BLOCKS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]


@technique("model", "mobilenet_v1")
class MobileNetV1:
    """A plain stack of depthwise-separable convolutions, 28 layers with weights.

    A. Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017
    (https://arxiv.org/abs/1704.04861), table 1: a 3x3 convolution of stride 2 to 32 channels; 13 blocks of a 3x3
    depthwise and a 1x1 convolution to 64, 128, 128, 256, 256, six times 512, 1024 and 1024 channels, with batch norm
    and ReLU after each; global average pooling; one linear layer. C input and D output channels cost 9 C + C D
    multiply-adds a pixel, 8 to 9 times less than a full 3x3 convolution. The table gives the last depthwise convolution
    stride 2 at an unchanged 7x7 pixels; here as everywhere it is 1. ``width`` multiplies channels (section 3.3),
    rounded to the nearest whole number.

    For 1,000 classes and 224x224 RGB: 4,231,976 parameters and 569 million multiply-adds; at width 0.5 1.3 million and
    149 million. Under 64 pixels (the shorter side) the first stride is 1, so that 32x32 ends in 2x2.

    Helps where multiply-adds and parameters are what counts, and as the plain member of its family: every layer is a
    module that surgery, pruning and quantization reach.
    Known not to help: accuracy for its cost, where MobileNetV2 and V3 are better (Sandler et al. 2018, table 4);
    latency on GPUs, since depthwise convolutions are bound by memory. Batch norm wants batches of some size.

    Attributes:
        width: multiplier of all channels.
        small_stem: a first stride of 1; None does so under 64 pixels.
        weights: a state dict of such a network to start from (a file); a classifier of another shape stays fresh.
    """

    width: Annotated[float, Gt(0)] = 1.0
    small_stem: bool | None = None
    weights: Path | None = None

    def fingerprint(self) -> str:
        """Digest of the weights' file, where there is one. Raises ``UsageError`` where it is missing."""
        return _state_file.fingerprint(self.weights) if self.weights else ""

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Build for images (C, H, W).

        Raises:
            UsageError: the weights don't fit.
            Unsupported: the weights' file can't be read.
        """
        channels = self._channels(32)
        first = 1 if is_small(image_shape, self.small_stem) else 2
        layers: list[tuple[str, torch.nn.Module]] = [
            ("conv", nn.Conv2d(image_shape[0], channels, 3, first, padding=1, bias=False)),
            ("norm", nn.BatchNorm2d(channels)),
            ("relu", nn.ReLU()),
        ]
        for number, (base, stride) in enumerate(_BLOCKS, 1):
            layers.append((f"block{number}", _block(channels, self._channels(base), stride)))
            channels = self._channels(base)
        layers += [
            ("pool", nn.AdaptiveAvgPool2d(1)),
            ("flatten", nn.Flatten()),
            ("linear", nn.Linear(channels, num_classes)),
        ]
        model = nn.Sequential(OrderedDict(layers))
        if self.weights is not None:
            load_weights(model, self.weights, "mobilenet_v1", None)
        check_logits(model, image_shape, num_classes, "mobilenet_v1")
        return model

    def _channels(self, base: int) -> int:
        return max(1, int(base * self.width + 0.5))


def _block(channels: int, out: int, stride: int) -> nn.Module:
    """Depthwise 3x3 and pointwise convolution, each with batch norm and ReLU."""
    layers: list[tuple[str, torch.nn.Module]] = [
        ("depthwise", nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)),
        ("norm1", nn.BatchNorm2d(channels)),
        ("relu1", nn.ReLU()),
        ("pointwise", nn.Conv2d(channels, out, 1, bias=False)),
        ("norm2", nn.BatchNorm2d(out)),
        ("relu2", nn.ReLU()),
    ]
    return nn.Sequential(OrderedDict(layers))


TECHNIQUES = (MobileNetV1,)
