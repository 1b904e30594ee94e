"""Hide part of the image."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from cnnbench.lazy import torch
from cnnbench.technique import technique
from cnnbench_plugins.augmentation._draw import integers


def erase(images: torch.Tensor, top: torch.Tensor, left: torch.Tensor, size: int, fill: torch.Tensor) -> torch.Tensor:
    """Paint a square over each image; what lies outside the image is cut off.

    Args:
        images: [N, C, H, W].
        top: first row, int64 [N], may be negative.
        left: first column, likewise.
        size: side in pixels.
        fill: colour, [1, C, 1, 1].
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) - top[:, None]
    columns = torch.arange(width, device=images.device) - left[:, None]
    in_rows = (rows >= 0) & (rows < size)
    in_columns = (columns >= 0) & (columns < size)
    return torch.where((in_rows[:, :, None] & in_columns[:, None, :])[:, None], fill, images)


@technique("augmentation", "cutout")
class Cutout:
    """Paint a square of the batch's mean colour over each image at a random place.

    DeVries & Taylor 2017: the square's centre is uniform over the pixels, so that part of it may fall outside. The
    paper fills with 0 after the data was centred, lest the batch's statistics shift; before input normalization that
    is the mean colour, here that of the batch. ``size`` is the side in pixels; the paper uses 16 on CIFAR-10 and 8 on
    CIFAR-100, that is a half and a quarter of the side, and the default suits images of 16 to 32 pixels.

    Helps networks that rely on one part of the object. Known to hurt where the object is small enough to vanish under
    the square.
    """

    size: Annotated[int, Ge(1)] = 8

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hide a square of every image."""
        height, width = images.shape[-2:]
        top = integers(images, 0, height - 1, generator) - self.size // 2
        left = integers(images, 0, width - 1, generator) - self.size // 2
        return erase(images, top, left, self.size, images.mean((0, 2, 3), keepdim=True)), targets


TECHNIQUES = (Cutout,)
