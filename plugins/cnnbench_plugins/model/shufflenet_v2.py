"""ShuffleNetV2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.technique import technique
from cnnbench_plugins.model._adapt import Weights, build_published, fingerprint

if TYPE_CHECKING:
    from cnnbench.lazy import nn

_PUBLISHED = {0.5: "x0_5", 1.0: "x1_0", 1.5: "x1_5", 2.0: "x2_0"}


@technique("model", "shufflenet_v2")
class ShuffleNetV2:
    """Blocks that leave half of the channels alone and shuffle the halves afterwards.

    N. Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", ECCV 2018
    (https://arxiv.org/abs/1807.11164), table 5; torchvision's. A block of stride 1 splits its channels, sends one half
    through a 1x1, a 3x3 depthwise and a 1x1 convolution of equal width, joins it with the other half and interleaves
    the two; at stride 2 both halves pass convolutions. ``width`` is one of the four of the table, whose channels are no
    multiples of each other.

    For 1,000 classes and 224x224 RGB, at width 0.5, 1, 1.5 and 2: 1,366,792, 2,278,604, 3,503,624 and 7,393,996
    parameters; 40, 145, 296 and 583 million multiply-adds. Under 64 pixels the first stride is 1 and the max pooling
    behind it goes.

    Helps: latency, since equal widths, few groups and no elementwise additions cost the least memory traffic for their
    multiply-adds (section 2 there).
    Known not to help: filter pruning, which rarely gets past the shuffle; accuracy for parameters, where MobileNetV3
    and EfficientNet are better.

    Attributes:
        width: 0.5, 1.0, 1.5 or 2.0.
        small_stem: a first stride of 1 without max pooling; None does so under 64 pixels (the shorter side).
        weights: what to start from: a state dict (a file by ``torch.save``, or safetensors), or a name of torchvision's
            published weights, which are downloaded. The classifier stays fresh where it does not fit, everything
            else must fit.
    """

    width: float = 1.0
    small_stem: bool | None = None
    weights: Weights | None = None

    def __post_init__(self) -> None:
        if self.width not in _PUBLISHED:
            nearest = min(_PUBLISHED, key=lambda width: abs(width - self.width))
            raise ValueError(f"width must be 0.5, 1.0, 1.5 or 2.0, not {self.width}: the nearest is {nearest}")

    def fingerprint(self) -> str:
        """Version of torchvision and digest of the weights' file. Raises ``UsageError`` where that is missing."""
        return fingerprint(self.weights)

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Build for images (C, H, W).

        Raises:
            UsageError: the weights don't fit.
            Unsupported: the images are too small, or the weights can't be had.
        """
        arch = f"shufflenet_v2_{_PUBLISHED[self.width]}"
        return build_published(
            arch, "shufflenet_v2", image_shape, num_classes, small_stem=self.small_stem, weights=self.weights
        )


TECHNIQUES = (ShuffleNetV2,)
