"""SqueezeNet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cnnbench.technique import technique
from cnnbench_plugins.model._adapt import Weights, build_published, fingerprint

if TYPE_CHECKING:
    from cnnbench.lazy import nn


@technique("model", "squeezenet")
class SqueezeNet:
    """Fire modules: a narrow 1x1 convolution, then 1x1 and 3x3 side by side; no norm, no linear layer.

    F. Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size", 2016
    (https://arxiv.org/abs/1602.07360), section 3 and table 1, for ``"1.0"``; ``"1.1"`` is the authors' later version
    with a 3x3 first layer and earlier pooling, 2.4 times cheaper at the same accuracy. Torchvision's: the classifier is
    a 1x1 convolution behind dropout of 0.5, its ReLU and a global average pool.

    For 1,000 classes and 224x224 RGB: ``"1.0"`` 1,248,424 parameters and 819 million multiply-adds, ``"1.1"`` 1,235,496
    and 349 million. Under 64 pixels the first convolution has stride 1 (in 1.0 also 3x3 in place of 7x7) and the first
    max pooling goes.

    Helps: the smallest file among the classic networks, more so compressed (table 2 there).
    Known not to help: learning rates above some 0.01 with SGD, which networks without norm do not bear; there all
    logits can die at the last ReLU. Multiply-adds are many for the parameters.

    Attributes:
        version: the paper's, or the later one.
        small_stem: stride 1 in the first convolution, and no pooling behind it; None does so under 64 pixels (the
            shorter side).
        weights: what to start from: a state dict (a file by ``torch.save``, or safetensors), or a name of torchvision's
            published weights, which are downloaded. The classifier stays fresh where it does not fit, everything
            else must fit.
    """

    version: Literal["1.0", "1.1"] = "1.1"
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
        arch = f"squeezenet{self.version.replace('.', '_')}"
        return build_published(
            arch, "squeezenet", image_shape, num_classes, small_stem=self.small_stem, weights=self.weights
        )


TECHNIQUES = (SqueezeNet,)
