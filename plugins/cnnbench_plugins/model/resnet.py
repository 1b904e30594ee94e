"""Residual networks for small images."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

from cnnbench.lazy import nn
from cnnbench.technique import technique

if TYPE_CHECKING:
    from cnnbench.lazy import torch


@technique("model", "resnet")
class ResNet:
    """A residual network for small images: depth 6n + 2, three stages of n blocks of two 3x3 convolutions.

    K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2: a 3x3
    convolution to ``width`` channels; stages with ``width``, 2 ``width`` and 4 ``width`` channels, the second and third
    at half the resolution of the one before; global average pooling; one linear layer. A block is
    relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)).

    Where a stage changes the shape of x the paper's section 4.2 pads new channels with zeros (its option A,
    ``shortcut = "pad"``: 269,722 parameters for depth 20, width 16, 32x32 RGB and 10 classes). The default here is its
    option B, a 1x1 convolution with batch norm (272,474 parameters), since there every operation is a module that
    surgery, pruning and quantization can act on; pruning whole filters does not get past the padding.

    Helps from about 20 layers on; at depth 8 it is a small network that trains well without tuning.
    ``residual = false`` leaves the shortcuts out and all else as it is: the paper's plain network.

    Attributes:
        depth: layers with weights along the main path: 8, 14, 20, 26, 32, ...
        width: channels of the first stage.
        residual: whether blocks have shortcuts.
        shortcut: what a shortcut does where the shape changes; without effect where ``residual`` is false.
    """

    depth: Annotated[int, Ge(8)] = 8
    width: Annotated[int, Ge(1)] = 16
    residual: bool = True
    shortcut: Literal["projection", "pad"] = "projection"

    def __post_init__(self) -> None:
        below = max(8, self.depth - (self.depth - 2) % 6)
        if self.depth != below:
            raise ValueError(f"depth must be 6n + 2, not {self.depth}: the nearest are {below} and {below + 6}")

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Build for images (C, H, W)."""
        from cnnbench_plugins.model._small import BasicBlock, conv_unit

        conv, norm, relu = conv_unit(image_shape[0], self.width)
        layers: list[tuple[str, torch.nn.Module]] = [("conv", conv), ("norm", norm), ("relu", relu)]
        channels = self.width
        for stage in range(3):
            blocks = []
            for index in range((self.depth - 2) // 6):
                out, stride = self.width * 2**stage, 2 if stage and not index else 1
                blocks.append(BasicBlock(channels, out, stride, self._shortcut(channels, out, stride)))
                channels = out
            layers.append((f"stage{stage + 1}", nn.Sequential(*blocks)))
        layers += [
            ("pool", nn.AdaptiveAvgPool2d(1)),
            ("flatten", nn.Flatten()),
            ("linear", nn.Linear(channels, num_classes)),
        ]
        return nn.Sequential(OrderedDict(layers))

    def _shortcut(self, channels: int, out: int, stride: int) -> nn.Module | None:
        from cnnbench_plugins.model._small import ZeroPadShortcut

        if not self.residual:
            return None
        if channels == out and stride == 1:
            return nn.Identity()
        if self.shortcut == "pad":
            return ZeroPadShortcut(out - channels, stride)
        return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


TECHNIQUES = (ResNet,)
