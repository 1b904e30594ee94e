"""LeNet-5."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from cnnbench.lazy import nn
from cnnbench.technique import technique

if TYPE_CHECKING:
    from cnnbench.lazy import torch

_PADDED_BELOW = 32  # the paper's input: 28 x 28 digits in a 32 x 32 field
_SMALL_BELOW = 28


@technique("model", "lenet")
class LeNet:
    """LeNet-5 with ReLU and max pooling: two convolutions, three linear layers, no norm.

    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE
    1998, section II.B: 5x5 convolutions to 6 and 16 channels, each with 2x2 pooling after it, then 120, 84 and K units.
    ReLU and max pooling stand where the paper has scaled tanh and a trained average; its partial connections between
    channels and its radial-basis output are left out, as everywhere today.

    From 32 pixels (the shorter side) convolutions are not padded, as in the paper: 61,706 parameters for 32x32 gray and
    10 classes. From 28 to 31 the first is padded by 2, which gives the same count at 28; below 28 both are, so that 8x8
    works.

    Helps as a small baseline without norm or residuals. With more than about 64 pixels nearly all parameters sit in the
    first linear layer.
    """

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Build for images (C, H, W)."""
        channels, height, width = image_shape
        side = min(height, width)
        first, second = (2 if side < _PADDED_BELOW else 0), (2 if side < _SMALL_BELOW else 0)
        rows, columns = (_after(_after(extent, first), second) for extent in (height, width))
        layers: list[tuple[str, torch.nn.Module]] = [
            ("conv1", nn.Conv2d(channels, 6, 5, padding=first)),
            ("relu1", nn.ReLU()),
            ("pool1", nn.MaxPool2d(2)),
            ("conv2", nn.Conv2d(6, 16, 5, padding=second)),
            ("relu2", nn.ReLU()),
            ("pool2", nn.MaxPool2d(2)),
            ("flatten", nn.Flatten()),
            ("linear1", nn.Linear(16 * rows * columns, 120)),
            ("relu3", nn.ReLU()),
            ("linear2", nn.Linear(120, 84)),
            ("relu4", nn.ReLU()),
            ("linear3", nn.Linear(84, num_classes)),
        ]
        return nn.Sequential(OrderedDict(layers))


def _after(extent: int, padding: int) -> int:
    """Pixels left by a 5x5 convolution and 2x2 pooling."""
    return (extent + 2 * padding - 4) // 2


TECHNIQUES = (LeNet,)
