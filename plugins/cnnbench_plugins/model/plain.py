"""A plain stack of convolutions."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from cnnbench.lazy import nn
from cnnbench.technique import technique

if TYPE_CHECKING:
    from cnnbench.lazy import torch

_STAGES = 3


@technique("model", "plain")
class Plain:
    """A plain stack of 3x3 convolutions without shortcuts, to any depth, with or without batch norm.

    After K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
    section 2.1, at small-image size: ``depth`` convolutions with a ReLU each, in three stages of (nearly) equal length
    with ``width``, 2 ``width`` and 4 ``width`` channels; 2x2 max pooling between stages; global average pooling; one
    linear layer. With batch norm convolutions have no bias.

    Helps where the question is how signals travel through depth: initializers, norms, activations. Without batch norm
    and with PyTorch's default initialization, stacks of some 20 layers and more hardly train, which is the point of
    them. For accuracy ``resnet`` is better from about 20 layers on.

    Attributes:
        depth: number of convolutions.
        width: channels of the first stage.
        norm: batch norm after each convolution.
    """

    depth: Annotated[int, Ge(1)] = 8
    width: Annotated[int, Ge(1)] = 16
    norm: bool = True

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Build for images (C, H, W)."""
        from cnnbench_plugins.model._small import conv_unit

        channels = image_shape[0]
        layers: list[tuple[str, torch.nn.Module]] = []
        for stage in range(min(_STAGES, self.depth)):
            if stage:
                layers.append((f"pool{stage}", nn.MaxPool2d(2)))
            length = len(range(stage, self.depth, _STAGES))
            for index in range(length):
                out = self.width * 2**stage
                layers.append(
                    (f"stage{stage + 1}_{index + 1}", nn.Sequential(*conv_unit(channels, out, norm=self.norm)))
                )
                channels = out
        layers += [
            ("pool", nn.AdaptiveAvgPool2d(1)),
            ("flatten", nn.Flatten()),
            ("linear", nn.Linear(channels, num_classes)),
        ]
        return nn.Sequential(OrderedDict(layers))


TECHNIQUES = (Plain,)
