"""DenseNet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, MinLen

from cnnbench.technique import technique
from cnnbench_plugins.model._adapt import Weights, adapt, check_published, fingerprint

if TYPE_CHECKING:
    from cnnbench.lazy import nn

# Layers of each dense block, and channels that a layer adds (table 1; 161 as in the authors' repository).
_PUBLISHED = {
    121: ((6, 12, 24, 16), 32),
    161: ((6, 12, 36, 24), 48),
    169: ((6, 12, 32, 32), 32),
    201: ((6, 12, 48, 32), 32),
}


@technique("model", "densenet")
class DenseNet:
    """Every layer sees the outputs of all layers before it in its block.

    G. Huang et al., "Densely Connected Convolutional Networks", CVPR 2017 (https://arxiv.org/abs/1608.06993), section
    3, the version DenseNet-BC; torchvision's. A layer is norm, ReLU, a 1x1 convolution to 4 k channels, norm, ReLU, a
    3x3 convolution to k, joined to its input; k is ``growth_rate``. Between blocks a 1x1 convolution halves the
    channels and an average pool the resolution. The first convolution has 2 k channels.

    ``depth`` names one of the paper's networks; ``blocks`` and ``growth_rate`` set other ones. For 1,000 classes and
    224x224 RGB, depth 121: 7,978,856 parameters and 2,834 million multiply-adds. Under 64 pixels the first convolution
    is 3x3 of stride 1 and the max pooling goes, as in the paper's section 3: three ``blocks`` of 16 layers with
    ``growth_rate`` 12 are its DenseNet-BC of 100 layers for CIFAR, 0.8 million parameters.

    Helps: accuracy for parameters (figure 3 there), and few images, since features are used again.
    Known not to help: memory and latency, since joined features are copied; batch norm reads them all again in every
    layer.

    Attributes:
        depth: layers with weights; without effect on a block structure given by ``blocks``.
        growth_rate: channels that each layer adds; None for the depth's own, 32 (48 for 161).
        blocks: layers of each dense block; None for the depth's own.
        small_stem: a 3x3 first convolution of stride 1 without max pooling; None does so under 64 pixels (the shorter
            side).
        weights: what to start from: a state dict (a file by ``torch.save``, or safetensors), or a name of torchvision's
            published weights for the paper's networks, which are downloaded. The classifier stays fresh where it does
            not fit, everything else must fit.
    """

    depth: Literal[121, 161, 169, 201] = 121
    growth_rate: Annotated[int, Ge(1)] | None = None
    blocks: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] | None = None
    small_stem: bool | None = None
    weights: Weights | None = None

    def __post_init__(self) -> None:
        check_published(self.weights, self._arch, "the paper's networks")

    def fingerprint(self) -> str:
        """Version of torchvision and digest of the weights' file. Raises ``UsageError`` where that is missing."""
        return fingerprint(self.weights)

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Build for images (C, H, W).

        Raises:
            UsageError: the weights don't fit.
            Unsupported: the images are too small, or the weights can't be had.
        """
        from torchvision.models import DenseNet as Network

        blocks, growth_rate = self._structure
        model = Network(growth_rate, blocks, 2 * growth_rate, num_classes=num_classes)
        return adapt(
            *(model, "densenet", image_shape, num_classes),
            small_stem=self.small_stem,
            weights=self.weights,
            arch=self._arch,
        )

    @property
    def _structure(self) -> tuple[tuple[int, ...], int]:
        blocks, growth_rate = _PUBLISHED[self.depth]
        return self.blocks or blocks, self.growth_rate or growth_rate

    @property
    def _arch(self) -> str | None:
        return f"densenet{self.depth}" if self._structure == _PUBLISHED[self.depth] else None


TECHNIQUES = (DenseNet,)
