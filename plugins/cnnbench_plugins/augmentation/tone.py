"""Change the scale of values: solarize, posterize, equalize."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le

from cnnbench.errors import NoEffect
from cnnbench.lazy import torch
from cnnbench.technique import technique
from cnnbench_plugins.augmentation import _color
from cnnbench_plugins.augmentation._draw import select, uniform


@technique("augmentation", "solarize")
class Solarize:
    """Invert the bright values of each image with probability p.

    Values at or above ``threshold`` become 1 - x, the others stay. One of AutoAugment's operations (Cubuk et al. 2019);
    the defaults are BYOL's for one of its two views (Grill et al. 2020, appendix B).

    Helps as one of many strong distortions on large training sets. Known to hurt on its own with small networks and
    few epochs: no camera does this.
    """

    threshold: Annotated[float, Ge(0), Le(1)] = 0.5
    p: Annotated[float, Gt(0), Le(1)] = 0.2

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Solarize the chosen images."""
        chosen = uniform(images, 0, 1, generator) < self.p
        # Nothing lies above a threshold of 2.
        thresholds = torch.full_like(chosen, self.threshold, dtype=torch.float32).masked_fill_(~chosen, 2)
        return _color.solarize(images, thresholds), targets


@technique("augmentation", "posterize")
class Posterize:
    """Leave each image only a few levels of every colour, with probability p.

    floor(2^bits x) / 2^bits, at most 1 - 2^-bits: torchvision's definition for float images (of 8-bit images the low
    bits are masked, which differs by less than a level). One of AutoAugment's operations (Cubuk et al. 2019, table 6,
    with 4 to 8 bits); the default is its strongest, and half of the images.

    Helps robustness to coarse quantization and compression. Known to change next to nothing at 6 bits and above, and
    to hurt at 1 or 2, where shading is lost.
    """

    bits: Annotated[int, Ge(1), Le(7)] = 4
    p: Annotated[float, Gt(0), Le(1)] = 0.5

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterize the chosen images."""
        chosen = uniform(images, 0, 1, generator) < self.p
        bits = torch.full_like(chosen, self.bits, dtype=torch.float32)
        return select(chosen, _color.posterize(images, bits), images), targets


@technique("augmentation", "equalize")
class Equalize:
    """Spread each channel's values evenly over their range, with probability p.

    Histogram equalization in 256 levels by Pillow's formula: level v becomes floor((n(v) + s / 2) / s) of 255, with
    n(v) the pixels of the channel below v and s a 255th of those below its highest level. Channels with fewer than 255
    pixels below their highest level stay as they are: images of 15 x 15 or less never change. One of AutoAugment's
    operations (Cubuk et al. 2019); half of the images by default.

    Helps where contrast and exposure differ widely, as in X-rays. Known to hurt on images with a large flat background,
    whose faint noise it blows up, and on drawings.
    """

    p: Annotated[float, Gt(0), Le(1)] = 0.5

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Equalize the chosen images.

        Raises:
            NoEffect: the images are too small.
        """
        height, width = images.shape[-2:]
        if height * width <= 255:
            raise NoEffect(f"equalize changes nothing: images of {height} x {width} have fewer than 256 pixels")
        # Waits for the device to say how many are chosen; the histograms of the others would take longer.
        rows = (uniform(images, 0, 1, generator) < self.p).nonzero()[:, 0]
        return images.index_copy(0, rows, _color.equalize(images.index_select(0, rows))), targets


TECHNIQUES = (Equalize, Posterize, Solarize)
