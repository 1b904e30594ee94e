"""Mirror images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt, Le

from cnnbench.technique import technique
from cnnbench_plugins.augmentation._draw import select, uniform

if TYPE_CHECKING:
    from cnnbench.lazy import torch


def flip(images: torch.Tensor, chosen: torch.Tensor, dim: int) -> torch.Tensor:
    """Mirror the chosen samples.

    Args:
        images: [N, C, H, W].
        chosen: bool [N].
        dim: -1 to swap left and right, -2 to swap top and bottom.
    """
    return select(chosen, images.flip(dim), images)


@technique("augmentation", "hflip")
class HFlip:
    """Mirror each image left to right with probability p.

    Krizhevsky et al. 2012, section 4.1, who flip half of the images (the default).

    Helps wherever an object and its mirror image are of one class: natural photographs. Known to hurt where left and
    right carry meaning: digits, letters, traffic signs, road scenes with one side to drive on.
    """

    p: Annotated[float, Gt(0), Le(1)] = 0.5

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mirror the chosen images."""
        return flip(images, uniform(images, 0, 1, generator) < self.p, -1), targets


@technique("augmentation", "vflip")
class VFlip:
    """Mirror each image top to bottom with probability p.

    The vertical counterpart of ``hflip``; half of the images by default, as there.

    Helps where there is no up: microscopy, satellite and aerial images. Known to hurt on photographs, which are taken
    upright and tested upright.
    """

    p: Annotated[float, Gt(0), Le(1)] = 0.5

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mirror the chosen images."""
        return flip(images, uniform(images, 0, 1, generator) < self.p, -2), targets


TECHNIQUES = (HFlip, VFlip)
