"""MobileNetV3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Gt

from cnnbench.technique import technique
from cnnbench_plugins.model._adapt import Weights, adapt, check_published, fingerprint

if TYPE_CHECKING:
    from cnnbench.lazy import nn


@technique("model", "mobilenet_v3")
class MobileNetV3:
    """MobileNetV2's blocks with squeeze-and-excitation and hard swish, arranged by search.

    A. Howard et al., "Searching for MobileNetV3", ICCV 2019 (https://arxiv.org/abs/1905.02244), tables 1 and 2;
    torchvision's. Kernels of 3x3 and 5x5, gates with hard sigmoid in some blocks, ReLU in early and hard swish
    x relu6(x + 3) / 6 in late ones, and a last stage that pools before its wide layer. ``width`` multiplies channels,
    rounded to multiples of 8.

    For 1,000 classes and 224x224 RGB: ``"small"`` has 2,542,856 parameters and 57 million multiply-adds, ``"large"``
    5,483,032 and 217 million (the paper's small one, 2.5 and 56; large 5.4 and 219). Under 64 pixels the first stride
    is 1.

    Helps: the most accuracy for latency on phones' CPUs among hand-made families (table 3 there).
    Known not to help: small training budgets, where a small ``resnet`` learns faster; 8-bit quantization, which hard
    swish and gates make harder than ReLU does; GPUs, where depthwise layers and gates wait for memory.

    Attributes:
        size: which of the paper's two networks.
        width: multiplier of channels.
        small_stem: a first stride of 1; None does so under 64 pixels (the shorter side).
        weights: what to start from: a state dict (a file by ``torch.save``, or safetensors), or a name of torchvision's
            published weights for width 1, which are downloaded. The classifier stays fresh where it does not fit,
            everything else must fit.
    """

    size: Literal["small", "large"] = "small"
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
        from torchvision import models

        model = models.get_model(f"mobilenet_v3_{self.size}", num_classes=num_classes, width_mult=self.width)
        return adapt(
            *(model, "mobilenet_v3", image_shape, num_classes),
            small_stem=self.small_stem,
            weights=self.weights,
            arch=self._arch,
        )

    @property
    def _arch(self) -> str | None:
        return f"mobilenet_v3_{self.size}" if self.width == 1 else None


TECHNIQUES = (MobileNetV3,)
