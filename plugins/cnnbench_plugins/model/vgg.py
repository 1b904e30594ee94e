"""VGG."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

from cnnbench.lazy import nn
from cnnbench.technique import technique
from cnnbench_plugins.model._adapt import Weights, adapt, check_published, fingerprint, is_small

if TYPE_CHECKING:
    from cnnbench.lazy import torch

# Convolutions of the five stages (table 1: A, B, D, E).
_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTH = 64


@technique("model", "vgg")
class VGG:
    """A plain stack of 3x3 convolutions in five stages, and three linear layers.

    K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015
    (https://arxiv.org/abs/1409.1556), table 1: stages of ``width``, 2, 4, 8 and 8 times ``width`` channels with 2x2 max
    pooling after each; linear layers of 64 ``width`` units, twice, with dropout of 0.5, and of K. Torchvision's, with
    its initialization (He et al. 2015 by fan-out; 0.01 in linear layers). ``norm`` puts batch norm behind each
    convolution, which the paper has not.

    For 1,000 classes and 224x224 RGB, depth 11 without norm: 132,863,336 parameters, of which 123,642,856 are in the
    linear layers, and 7,609 million multiply-adds. With the small head, which images under 64 pixels get, global
    average pooling and one linear layer stand in place of the three: 9,225,610 parameters for depth 11 without norm,
    RGB and 10 classes. Poolings of a single pixel are left out, so that 28x28 and 8x8 work.

    Helps as the plain network that pruning and factorization papers compare on.
    Known not to help: accuracy for parameters or multiply-adds, where anything newer is better; without norm, depth 16
    and 19 train only with care.

    Attributes:
        depth: layers with weights, the three linear ones included.
        norm: batch norm after each convolution.
        width: channels of the first stage.
        small_head: one linear layer in place of three; None does so under 64 pixels (the shorter side).
        weights: what to start from: a state dict (a file by ``torch.save``, or safetensors), or a name of torchvision's
            published weights for width 64, which are downloaded. The linear layers stay fresh where they do not fit,
            everything else must fit.
    """

    depth: Literal[11, 13, 16, 19] = 11
    norm: bool = True
    width: Annotated[int, Ge(1)] = _WIDTH
    small_head: bool | None = None
    weights: Weights | None = None

    def __post_init__(self) -> None:
        check_published(self.weights, self._arch, f"width {_WIDTH}")

    def fingerprint(self) -> str:
        """Version of torchvision and digest of the weights' file. Raises ``UsageError`` where that is missing."""
        return fingerprint(self.weights)

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Build for images (C, H, W).

        Raises:
            UsageError: the weights don't fit.
            Unsupported: the weights can't be had.
        """
        from torchvision.models.vgg import make_layers

        plan: list[int | str] = []
        for stage, length in enumerate(_STAGES[self.depth]):
            plan += [self.width * 2 ** min(stage, 3)] * length
            if min(image_shape[1:]) >> stage > 1:
                plan.append("M")
        small = is_small(image_shape, self.small_head)
        layers: list[tuple[str, torch.nn.Module]] = [
            ("features", make_layers(plan, batch_norm=self.norm)),
            ("avgpool", nn.AdaptiveAvgPool2d(1 if small else 7)),
            ("flatten", nn.Flatten()),
            ("classifier", nn.Linear(8 * self.width, num_classes) if small else self._head(num_classes)),
        ]
        model = nn.Sequential(OrderedDict(layers))
        _initialize(model)
        return adapt(*(model, "vgg", image_shape, num_classes), small_stem=False, weights=self.weights, arch=self._arch)

    @property
    def _arch(self) -> str | None:
        return f"vgg{self.depth}{'_bn' if self.norm else ''}" if self.width == _WIDTH else None

    def _head(self, num_classes: int) -> nn.Module:
        hidden = 64 * self.width
        return nn.Sequential(
            *(nn.Linear(8 * self.width * 49, hidden), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout()),
            nn.Linear(hidden, num_classes),
        )


def _initialize(model: nn.Module) -> None:
    """Fill the weights as torchvision does, in place; batch norms are as they should be."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


TECHNIQUES = (VGG,)
