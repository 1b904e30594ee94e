"""EfficientNet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cnnbench.technique import technique
from cnnbench_plugins.model._adapt import Weights, build_published, fingerprint

if TYPE_CHECKING:
    from cnnbench.lazy import nn


@technique("model", "efficientnet")
class EfficientNet:
    """Inverted residual blocks with gates, scaled in width, depth and resolution together.

    M. Tan, Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019
    (https://arxiv.org/abs/1905.11946), table 1, for b0 to b7: MobileNetV2's block with squeeze-and-excitation and
    SiLU; b1 to b7 multiply width and depth by fixed steps. "EfficientNetV2: Smaller Models and Faster Training", ICML
    2021 (https://arxiv.org/abs/2104.00298), table 4, for v2_s, v2_m, v2_l: a full 3x3 convolution in place of the first
    two in early stages. Torchvision's, with its dropout and stochastic depth.

    For 1,000 classes and 224x224 RGB b0 has 5,288,548 parameters and 386 million multiply-adds (the paper counts 390).
    The resolution is the dataset's: the paper's is 224 for b0 up to 600 for b7. Under 64 pixels the first stride is 1.

    Helps: accuracy for parameters and multiply-adds, given long training (figures 1 and 5 of the first paper).
    Known not to help: short training from scratch and few images; latency and training time on GPUs, which its
    multiply-adds understate (section 3 of the second paper).

    Attributes:
        variant: which network.
        small_stem: a first stride of 1; None does so under 64 pixels (the shorter side).
        weights: what to start from: a state dict (a file by ``torch.save``, or safetensors), or a name of torchvision's
            published weights, which are downloaded. The classifier stays fresh where it does not fit, everything
            else must fit.
    """

    variant: Literal["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "v2_s", "v2_m", "v2_l"] = "b0"
    small_stem: bool | None = None
    weights: Weights | None = None

    def fingerprint(self) -> str:
        """Version of torchvision and digest of the weights' file. Raises ``UsageError`` where that is missing."""
        return fingerprint(self.weights)

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Build for images (C, H, W).

        Raises:
            UsageError: the weights don't fit.
            Unsupported: the images are too small, or the weights can't be had.
        """
        arch = f"efficientnet_{self.variant}"
        return build_published(
            arch, "efficientnet", image_shape, num_classes, small_stem=self.small_stem, weights=self.weights
        )


TECHNIQUES = (EfficientNet,)
