"""ConvNeXt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cnnbench.technique import technique
from cnnbench_plugins.model._adapt import Weights, adapt, check_published, fingerprint

if TYPE_CHECKING:
    from cnnbench.lazy import nn

# Channels of the first stage, blocks of the four stages, stochastic depth; torchvision has the last four.
_SIZES = {
    "atto": (40, (2, 2, 6, 2), 0.0),
    "femto": (48, (2, 2, 6, 2), 0.0),
    "pico": (64, (2, 2, 6, 2), 0.0),
    "nano": (80, (2, 2, 8, 2), 0.0),
    "tiny": (96, (3, 3, 9, 3), 0.1),
    "small": (96, (3, 3, 27, 3), 0.4),
    "base": (128, (3, 3, 27, 3), 0.5),
    "large": (192, (3, 3, 27, 3), 0.5),
}
_IN_TORCHVISION = ("tiny", "small", "base", "large")


@technique("model", "convnext")
class ConvNeXt:
    """A convolutional network with the design of vision transformers: patches, wide kernels, layer norm, GELU.

    Z. Liu et al., "A ConvNet for the 2020s", CVPR 2022 (https://arxiv.org/abs/2201.03545), section 2 and table 9;
    torchvision's. A block is x + g f(x) with f a 7x7 depthwise convolution, layer norm over channels, a linear layer to
    4 C channels, GELU and a linear layer back, and g a learned scale a channel from 1e-6. Stages have C, 2 C, 4 C and
    8 C channels with a norm and a 2x2 convolution of stride 2 between them. Sizes below tiny have the channels and
    blocks of S. Woo et al., "ConvNeXt V2", CVPR 2023 (https://arxiv.org/abs/2301.00808), appendix, without that
    paper's response norm.

    For 1,000 classes and 224x224 RGB tiny has 28,589,128 parameters and 4,456 million multiply-adds; atto, femto, pico,
    nano 3.7, 5.2, 9.0 and 15.6 million parameters. The first convolution takes patches of 4x4 pixels, under 64 pixels
    of 2x2.

    Helps: accuracy at scale, with AdamW, strong augmentation and hundreds of epochs (table 1 there).
    Known not to help: training from scratch on few images in few epochs, where the scales near 0 leave blocks idle for
    long; latency on CPUs, where 7x7 depthwise convolutions and permutations are slow.

    Attributes:
        size: which network.
        small_stem: patches of 2x2 pixels; None does so under 64 pixels (the shorter side).
        weights: what to start from: a state dict (a file by ``torch.save``, or safetensors), or a name of torchvision's
            published weights from tiny up, which are downloaded. The classifier stays fresh where it does not fit,
            everything else must fit.
    """

    size: Literal["atto", "femto", "pico", "nano", "tiny", "small", "base", "large"] = "tiny"
    small_stem: bool | None = None
    weights: Weights | None = None

    def __post_init__(self) -> None:
        check_published(self.weights, self._arch, "sizes from tiny up")

    def fingerprint(self) -> str:
        """Version of torchvision and digest of the weights' file. Raises ``UsageError`` where that is missing."""
        return fingerprint(self.weights)

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Build for images (C, H, W).

        Raises:
            UsageError: the weights don't fit.
            Unsupported: the images are too small, or the weights can't be had.
        """
        from torchvision.models.convnext import CNBlockConfig
        from torchvision.models.convnext import ConvNeXt as Network

        channels, blocks, dropped = _SIZES[self.size]
        widths = [channels * 2**stage for stage in range(len(blocks))]
        stages = [CNBlockConfig(*stage) for stage in zip(widths, [*widths[1:], None], blocks, strict=True)]
        model = Network(stages, stochastic_depth_prob=dropped, num_classes=num_classes)
        return adapt(
            *(model, "convnext", image_shape, num_classes),
            small_stem=self.small_stem,
            weights=self.weights,
            arch=self._arch,
        )

    @property
    def _arch(self) -> str | None:
        return f"convnext_{self.size}" if self.size in _IN_TORCHVISION else None


TECHNIQUES = (ConvNeXt,)
