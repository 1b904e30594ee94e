"""MobileNetV2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt

from cnnbench.technique import technique
from cnnbench_plugins.model._adapt import Weights, adapt, check_published, fingerprint

if TYPE_CHECKING:
    from cnnbench.lazy import nn


@technique("model", "mobilenet_v2")
class MobileNetV2:
    """Inverted residual blocks: narrow between blocks, wide within, and linear where they end.

    M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018
    (https://arxiv.org/abs/1801.04381), table 2; torchvision's. A block is a 1x1 convolution to 6 C channels, a 3x3
    depthwise one, and a 1x1 one to D channels without activation; where C = D and the stride is 1 its input is added.
    Batch norm everywhere, ReLU6 after the first two. ``width`` multiplies channels, rounded to multiples of 8 (at least
    8, never more than 10 percent down); the last layer's 1,280 grow with it above 1 and never shrink.

    For 1,000 classes and 224x224 RGB: 3,504,872 parameters and 301 million multiply-adds. Under 64 pixels the first
    stride is 1.

    Helps: more accuracy than MobileNetV1 at 4/5 of its parameters and half of its multiply-adds (table 4 there).
    Known not to help: training from scratch on few images in few epochs, where a small ``resnet`` learns faster;
    latency in proportion to its multiply-adds, since depthwise convolutions are bound by memory.

    Attributes:
        width: multiplier of channels.
        small_stem: a first stride of 1; None does so under 64 pixels (the shorter side).
        weights: what to start from: a state dict (a file by ``torch.save``, or safetensors), or a name of torchvision's
            published weights for width 1, which are downloaded. The classifier stays fresh where it does not fit,
            everything else must fit.
    """

    width: Annotated[float, Gt(0)] = 1.0
    small_stem: bool | None = None
    weights: Weights | None = None

    def __post_init__(self) -> None:
        check_published(self.weights, self._arch, "width 1")

    def fingerprint(self) -> str:
        """Version of torchvision and digest of the weights' file. Raises ``UsageError`` where that is missing."""
        return fingerprint(self.weights)

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Build for images (C, H, W).

        Raises:
            UsageError: the weights don't fit.
            Unsupported: the images are too small, or the weights can't be had.
        """
        from torchvision.models import MobileNetV2 as Network

        model = Network(num_classes=num_classes, width_mult=self.width)
        return adapt(
            *(model, "mobilenet_v2", image_shape, num_classes),
            small_stem=self.small_stem,
            weights=self.weights,
            arch=self._arch,
        )

    @property
    def _arch(self) -> str | None:
        return "mobilenet_v2" if self.width == 1 else None


TECHNIQUES = (MobileNetV2,)
