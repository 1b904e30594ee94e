"""Images enlarged in front of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from cnnbench import technique
from cnnbench.lazy import nn

if TYPE_CHECKING:
    from cnnbench.slots import Model


@technique("architecture", "template_name")
class Template:
    """Shows the network its images enlarged.

    The resolution of Tan & Le 2019, https://arxiv.org/abs/1905.11946, section 3.2, as a layer: [N, C, H, W] becomes
    [N, C, factor H, factor W] by bilinear interpolation, and the network behind is built for images of that size.
    Convolutions then cost factor^2 times as much; their weights stay as many.

    Helps small images in networks that shrink them early, which see more positions. Known not to add anything that was
    not in the image, nor to help a network that sees all of it already.

    Attributes:
        factor: of height and width.
    """

    # An option is a typed field; its constraints are checked when a suite is read, before anything runs.
    factor: Annotated[int, Ge(2), Le(16)] = 2

    def __call__(self, model: Model) -> Model:
        """What is built in the model's place. A changed copy of its options (``dataclasses.replace``) would do too."""
        return Enlarged(model, self.factor)


@dataclass(frozen=True)
class Enlarged:
    """A model with an interpolation in front.

    Attributes:
        model: what is built behind it.
        factor: of height and width.
    """

    model: Model
    factor: int

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Build for images (C, H, W)."""
        channels, height, width = image_shape
        network = self.model((channels, height * self.factor, width * self.factor), num_classes)
        return nn.Sequential(nn.Upsample(scale_factor=self.factor, mode="bilinear"), network)
