"""Shift images by whole pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

from cnnbench.errors import Unsupported
from cnnbench.technique import technique
from cnnbench_plugins.augmentation._draw import integers
from cnnbench_plugins.augmentation._geometry import PadMode, crop, translate

if TYPE_CHECKING:
    from cnnbench.lazy import torch

_PAD_MODES: dict[str, PadMode] = {"zeros": "constant", "reflect": "reflect", "edge": "replicate"}


@technique("augmentation", "translate")
class Translate:
    """Shift each image by whole pixels at random, filling with zeros.

    Both shifts are uniform on the integers -pixels..pixels: exactly what padding by ``pixels`` zeros and cropping back
    at random does (He et al. 2016, section 4.2, with 4 pixels on 32 x 32 images; ``crop`` has other paddings). Whole
    pixels, because interpolating would blur as well as shift. The default is half of theirs, for images of 8 to 28
    pixels.

    Helps on centred objects and small training sets. Known not to help where the network pools globally and objects
    already lie anywhere, and to hurt where the shift cuts the object off.
    """

    pixels: Annotated[int, Ge(1)] = 2

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Shift every image."""
        right = integers(images, -self.pixels, self.pixels, generator)
        down = integers(images, -self.pixels, self.pixels, generator)
        return translate(images, right, down, self.pixels), targets


@technique("augmentation", "crop")
class Crop:
    """Pad each image on every side and crop it back to its size at a random place.

    The window's corner is uniform on the integers 0..2 padding, both ways. ``fill`` is what the padding holds:
    ``zeros`` (He et al. 2016, section 4.2; then this is ``translate``), ``reflect``, the mirrored image (Zagoruyko &
    Komodakis 2016, section 3), or ``edge``, the outermost pixels repeated. The default of 4 pixels is theirs, for
    32 x 32 images.

    Helps on centred objects and small training sets; reflection where a black bar would give the shift away, as on
    photographs. Known to hurt where the padding is a large part of the image: take 1 or 2 on 8 x 8 pixels.
    """

    padding: Annotated[int, Ge(1)] = 4
    fill: Literal["zeros", "reflect", "edge"] = "zeros"

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Crop every image.

        Raises:
            Unsupported: a reflection as wide as the image.
        """
        height, width = images.shape[-2:]
        if self.fill == "reflect" and self.padding >= min(height, width):
            raise Unsupported(
                f"crop: {self.padding} pixels can't be reflected in images of {height} x {width}; "
                f"use padding up to {min(height, width) - 1}, or fill 'edge'"
            )
        left = integers(images, 0, 2 * self.padding, generator)
        top = integers(images, 0, 2 * self.padding, generator)
        return crop(images, left, top, self.padding, _PAD_MODES[self.fill]), targets


TECHNIQUES = (Crop, Translate)
