"""An all-convolutional network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from cnnbench import technique
from cnnbench.lazy import nn

if TYPE_CHECKING:
    from cnnbench.lazy import torch


@technique("model", "template_name")
class Template:
    """Convolutions alone: those of stride 2 shrink the image, and a 1x1 convolution classifies.

    After Springenberg et al. 2015, https://arxiv.org/abs/1412.6806, section 2: ``stages`` times a 3x3 convolution and
    one of stride 2, each with batch norm and ReLU, of width, 2 width, 4 width ... channels; then a 1x1 convolution to K
    channels and the mean of each. Images [N, C, H, W] to logits [N, K]; H and W may be anything.

    Helps as a plain network without pooling layers. Known not to help beyond a few stages: there are no shortcuts.

    Attributes:
        width: channels of the first stage.
        stages: how often the image is halved.
    """

    # Options are typed fields; their constraints are checked when a suite is read, before anything runs.
    width: Annotated[int, Ge(1)] = 16
    stages: Annotated[int, Ge(1)] = 2

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Build for images (C, H, W). Layers draw from torch's default generator, which the trial has seeded."""
        channels = image_shape[0]
        layers: list[torch.nn.Module] = []
        for stage in range(self.stages):
            width = self.width * 2**stage
            for stride in (1, 2):
                # Norms and activations are modules, each used once, so that other techniques can replace them.
                convolution = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
                layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
        layers += [nn.Conv2d(channels, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers)
