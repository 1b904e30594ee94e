"""Hide part of the image."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le

from cnnbench.lazy import torch
from cnnbench.technique import technique
from cnnbench_plugins.augmentation._box import inside
from cnnbench_plugins.augmentation._draw import integers, noise_levels, select, uniform

_TRIES = 10


def erase(images: torch.Tensor, top: torch.Tensor, left: torch.Tensor, size: int, fill: torch.Tensor) -> torch.Tensor:
    """Paint a square over each image; what lies outside the image is cut off.

    Args:
        images: [N, C, H, W].
        top: first row, int64 [N], may be negative.
        left: first column, likewise.
        size: side in pixels.
        fill: colour, [1, C, 1, 1].
    """
    return select(inside(images, top, left, size, size), fill.expand_as(images), images)


def fitting_box(images: torch.Tensor, areas: torch.Tensor, aspects: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Height and width, int64 [N], of each sample's first box that is smaller than the image; 0, 0 if none is.

    h = sqrt(area x aspect), w = sqrt(area / aspect), rounded to pixels.

    Args:
        images: [N, C, H, W].
        areas: shares of the image's area, [tries, N].
        aspects: height over width, [tries, N].
    """
    most_height, most_width = images.shape[-2:]
    pixels = areas * (most_height * most_width)
    heights = (pixels * aspects).sqrt().round().long()
    widths = (pixels / aspects).sqrt().round().long()
    fits = (heights < most_height) & (widths < most_width)
    first = fits.to(torch.uint8).argmax(0, keepdim=True)
    height, width = (sizes.where(fits, 0).gather(0, first)[0] for sizes in (heights, widths))
    return height, width


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


@technique("augmentation", "random_erasing")
class RandomErasing:
    """Fill a box of random place, size and shape with random pixels, with probability p.

    Zhong et al. 2020, algorithm 1: the box's share of the image is uniform in [area_min, area_max], its height over
    width uniform in [aspect, 1 / aspect], both drawn again (here up to 10 times) where the box does not fit; it lies
    anywhere inside the image with equal probability, and each value in it is uniform over the 256 levels from 0 to 1
    (their best of four fills). Defaults are theirs for classification. ! Widely used versions differ: torchvision draws
    the aspect's logarithm uniformly, at most a third of the area, and fills with 0; timm fills with normal noise, for
    images that are normalized already.

    Helps against occlusion and on small training sets, on top of flips and crops. Known to hurt where the object is
    small enough to vanish under the box, and with very little training.
    """

    p: Annotated[float, Gt(0), Le(1)] = 0.5
    area_min: Annotated[float, Gt(0), Le(1)] = 0.02
    area_max: Annotated[float, Gt(0), Le(1)] = 0.4
    aspect: Annotated[float, Gt(0), Le(1)] = 0.3

    def __post_init__(self) -> None:
        if self.area_min > self.area_max:
            raise ValueError(f"area_min must not be above area_max, not {self.area_min:g} and {self.area_max:g}")

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hide a box of the chosen images."""
        chosen = uniform(images, 0, 1, generator) < self.p
        tries = images[:1].expand(_TRIES * len(images), -1, -1, -1)
        areas = uniform(tries, self.area_min, self.area_max, generator).view(_TRIES, -1)
        aspects = uniform(tries, self.aspect, 1 / self.aspect, generator).view(_TRIES, -1)
        height, width = fitting_box(images, areas, aspects)
        # Whole pixels with every place alike: floor of a uniform number in [0, places).
        top, left = (
            (uniform(images, 0, 1, generator) * (side - size + 1)).long()
            for side, size in zip(images.shape[-2:], (height, width), strict=True)
        )
        box = inside(images, top, left, height * chosen, width)
        return select(box, noise_levels(images, generator), images), targets


TECHNIQUES = (Cutout, RandomErasing)
