"""Move what is in the image by affine maps: rotation, scale, shear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le, Lt

from cnnbench.technique import technique
from cnnbench_plugins.augmentation._draw import uniform
from cnnbench_plugins.augmentation._geometry import affine, rotate

if TYPE_CHECKING:
    from cnnbench.lazy import torch


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


@technique("augmentation", "scale")
class Scale:
    """Enlarge or shrink what is in each image about its centre by a random factor.

    The factor is uniform in [1 - strength, 1 + strength], one for both directions; bilinear interpolation, size kept,
    so that enlarging cuts the rim off and shrinking leaves a black one. The default of 0.2 is a common choice, not one
    paper's; Cireşan et al. 2010 (section 2) scale digits by 15 to 20 %.

    Helps where objects come in several sizes. Known not to help where all are framed alike in training and in use, and
    to hurt where size is what tells classes apart.
    """

    strength: Annotated[float, Gt(0), Lt(1)] = 0.2

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale every image."""
        return affine(images, scale=uniform(images, 1 - self.strength, 1 + self.strength, generator)), targets


@technique("augmentation", "shear")
class Shear:
    """Slant each image about its centre by random angles, along x and along y.

    Both angles are uniform in [-degrees, degrees]: x moves by -y tan(first), then y by -x tan(second); bilinear
    interpolation, zeros where nothing was, size kept. The default of 10 degrees is a common choice, not one paper's;
    AutoAugment's strongest shear (Cubuk et al. 2019, table 6) is tan = 0.3, or 17 degrees, along one of the axes.

    Helps on handwriting, whose slant differs from hand to hand, and objects seen from different sides. Known to hurt
    where right angles matter, as in diagrams and plans.
    """

    degrees: Annotated[float, Gt(0), Lt(45)] = 10.0

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Slant every image."""
        along_x = uniform(images, -self.degrees, self.degrees, generator)
        along_y = uniform(images, -self.degrees, self.degrees, generator)
        return affine(images, shear_x=along_x, shear_y=along_y), targets


@technique("augmentation", "affine")
class Affine:
    """Rotate, scale, slant and shift each image at random, in one interpolation.

    With c the centre, a point p goes to s R(a) Y(v) X(h) (p - c) + c + t: X(h) and Y(v) the shears of ``shear``, R(a)
    the rotation of ``rotate``, s the factor of ``scale``, t a shift in fractions of the sides. Angles are uniform in
    [-degrees, degrees] and [-shear, shear], the factor in [1 - scale, 1 + scale], both shifts in
    [-translate, translate]; zeros where nothing was. One warp costs and blurs less than four in a row. A strength of 0
    leaves its part out.

    Simard et al. 2003 made affine distortion standard for digits. The angle is that of Cireşan et al. 2010 (section 2);
    the other defaults are milder than theirs, as all four act together.

    Helps on small training sets of things that turn up in any pose. Known to hurt at strengths under which the object
    leaves the frame, and on images of 8 x 8, which interpolation blurs.
    """

    degrees: Annotated[float, Ge(0), Le(180)] = 15.0
    translate: Annotated[float, Ge(0), Lt(1)] = 0.1
    scale: Annotated[float, Ge(0), Lt(1)] = 0.1
    shear: Annotated[float, Ge(0), Lt(45)] = 5.0

    def __post_init__(self) -> None:
        if not any((self.degrees, self.translate, self.scale, self.shear)):
            raise ValueError("at least one of degrees, translate, scale and shear must be above 0")

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Warp every image."""
        height, width = images.shape[-2:]

        def draw(strength: float, around: float = 0.0) -> torch.Tensor | float:
            """Uniform about ``around``; nothing is drawn at a strength of 0."""
            return uniform(images, around - strength, around + strength, generator) if strength else around

        warped = affine(
            images,
            degrees=draw(self.degrees),
            right=draw(self.translate * width),
            down=draw(self.translate * height),
            scale=draw(self.scale, around=1.0),
            shear_x=draw(self.shear),
            shear_y=draw(self.shear),
        )
        return warped, targets


TECHNIQUES = (Affine, Rotate, Scale, Shear)
