"""Move what is in the image: rotation, translation."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le

from cnnbench.lazy import F, torch
from cnnbench.technique import technique
from cnnbench_plugins.augmentation._draw import integers, uniform


def rotate(images: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Rotate each image about its centre: bilinear, size kept, zeros where nothing was.

    Args:
        images: float [N, C, H, W].
        degrees: counter-clockwise, [N].
    """
    height, width = images.shape[-2:]
    radians = torch.deg2rad(degrees)
    cosine, sine = torch.cos(radians), torch.sin(radians)
    zero = torch.zeros_like(sine)
    # Where each output pixel comes from. The grid runs from -1 to 1 along both sides, so that the shape's aspect
    # ratio has to be undone, or an oblong image would be sheared.
    rows = (cosine, -sine * (height / width), zero, sine * (width / height), cosine, zero)
    inverse = torch.stack(rows, 1).view(-1, 2, 3).to(images.dtype)
    grid = F.affine_grid(inverse, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def translate(images: torch.Tensor, right: torch.Tensor, down: torch.Tensor, limit: int) -> torch.Tensor:
    """Shift each image by whole pixels, zeros where nothing was.

    Args:
        images: [N, C, H, W].
        right: pixels, int64 [N], each within -limit..limit; negative is to the left.
        down: the same, downwards.
        limit: the largest shift.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (limit, limit, limit, limit))
    # A view of every possible crop; picking one for each sample is the only copy.
    crops = padded.unfold(2, height, 1).unfold(3, width, 1)
    return crops[torch.arange(len(images), device=images.device), :, limit - down, limit - right]


@technique("augmentation", "rotate")
class Rotate:
    """Rotate each image about its centre by a random angle.

    The angle is uniform in [-degrees, degrees]; bilinear interpolation, corners filled with zeros (black), size kept.
    Simard et al. 2003 made affine distortion standard for digits; the default of 15 degrees is a common choice for
    digits and small photographs, not one paper's.

    Helps where orientation varies from image to image, and on small training sets. Known to hurt where a rotation
    changes the class (6 and 9 at 180 degrees), and at large angles on images as small as 8 x 8, which interpolation
    blurs.
    """

    degrees: Annotated[float, Gt(0), Le(180)] = 15.0

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotate every image."""
        return rotate(images, uniform(images, -self.degrees, self.degrees, generator)), targets


@technique("augmentation", "translate")
class Translate:
    """Shift each image by whole pixels at random, filling with zeros.

    Both shifts are uniform on the integers -pixels..pixels: exactly what padding by ``pixels`` zeros and cropping back
    at random does (He et al. 2016, section 4.2, with 4 pixels on 32 x 32 images). Whole pixels, because interpolating
    would blur as well as shift. The default is half of theirs, for images of 8 to 28 pixels.

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


TECHNIQUES = (Rotate, Translate)
