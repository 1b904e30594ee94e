"""Change colours and leave every pixel where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le

from cnnbench.errors import NoEffect
from cnnbench.technique import technique
from cnnbench_plugins.augmentation._color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    luma,
)
from cnnbench_plugins.augmentation._draw import select, uniform

if TYPE_CHECKING:
    from cnnbench.lazy import torch


def _factors(images: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Factors about 1, none below 0, [N]."""
    return uniform(images, max(0.0, 1 - strength), 1 + strength, generator)


def _refuse_gray(images: torch.Tensor, name: str) -> None:
    if images.shape[1] == 1:
        raise NoEffect(f"{name} changes nothing: the images are gray")


@technique("augmentation", "brightness")
class Brightness:
    """Make each image darker or brighter at random.

    f x, cut to 0..1, with the factor f uniform in [max(0, 1 - strength), 1 + strength]. The default is that part of
    ``color_jitter``.

    Helps where exposure differs between training and use. Known not to help where the input is normalized image by
    image, which takes the factor out again but for what was cut.
    """

    strength: Annotated[float, Gt(0)] = 0.4

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale the values of every image."""
        return adjust_brightness(images, _factors(images, self.strength, generator)), targets


@technique("augmentation", "contrast")
class Contrast:
    """Lower or raise each image's contrast at random.

    f x + (1 - f) m, cut to 0..1, with m the mean gray of the image itself and the factor f uniform in
    [max(0, 1 - strength), 1 + strength]. The default is that part of ``color_jitter``.

    Helps where lighting or haze differ between training and use. Known not to help where the input is normalized image
    by image, which takes the factor out again but for what was cut.
    """

    strength: Annotated[float, Gt(0)] = 0.4

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Spread the values of every image about its mean gray."""
        return adjust_contrast(images, _factors(images, self.strength, generator)), targets


@technique("augmentation", "saturation")
class Saturation:
    """Make each image's colours paler or stronger at random.

    f x + (1 - f) g, cut to 0..1, with g the pixel's own gray (0.2989 R + 0.587 G + 0.114 B) and the factor f uniform
    in [max(0, 1 - strength), 1 + strength]. The default is that part of ``color_jitter``. On gray images it changes
    nothing, and says so.

    Helps where cameras or light differ between training and use. Known to hurt where paleness is the class, as ripe
    against unripe.
    """

    strength: Annotated[float, Gt(0)] = 0.4

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Move every pixel from or to its gray.

        Raises:
            NoEffect: the images are gray.
        """
        _refuse_gray(images, "saturation")
        return adjust_saturation(images, _factors(images, self.strength, generator)), targets


@technique("augmentation", "hue")
class Hue:
    """Turn each image's colours around the colour circle at random.

    The hue of the HSV model (Smith 1978) moves by a part of the circle that is uniform in [-turn, turn], 0.5 being the
    opposite colour; value and saturation stay. The default is that part of ``color_jitter``. On gray images it changes
    nothing, and says so.

    Helps where colour is accidental: clothes, cars, toys. Known to hurt most of all colour changes where it is not:
    flowers, birds, stained tissue, traffic lights.
    """

    turn: Annotated[float, Gt(0), Le(0.5)] = 0.1

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn the colours of every image.

        Raises:
            NoEffect: the images are gray.
        """
        _refuse_gray(images, "hue")
        return adjust_hue(images, uniform(images, -self.turn, self.turn, generator)), targets


@technique("augmentation", "grayscale")
class Grayscale:
    """Take the colour out of each image with probability p.

    All three channels become 0.2989 R + 0.587 G + 0.114 B (ITU-R BT.601). SimCLR's share of the images is the default
    (Chen et al. 2020, appendix A: 20 %). On gray images it changes nothing, and says so.

    Helps shape to be learned beside colour, and where some images in use are gray. Known to hurt where colour is the
    class.
    """

    p: Annotated[float, Gt(0), Le(1)] = 0.2

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gray the chosen images.

        Raises:
            NoEffect: the images are gray.
        """
        _refuse_gray(images, "grayscale")
        chosen = uniform(images, 0, 1, generator) < self.p
        return select(chosen, luma(images).expand_as(images), images), targets


@technique("augmentation", "color_jitter")
class ColorJitter:
    """Change each image's brightness, contrast, saturation and hue at random.

    Factors of the first three are uniform in [max(0, 1 - strength), 1 + strength], the hue's turn uniform in
    [-hue, hue] of the colour circle; every sample draws its own. They are applied in the order named, each result cut
    to 0..1. Gray images have no saturation and no hue, and keep theirs.

    Defaults are the colour distortion of SimCLR at the strength used for CIFAR-10 (Chen et al. 2020, appendices A and
    B.9), which applies it to 80 % of the images and in random order. A strength of 0 leaves the property out.

    Helps where lighting or cameras differ between training and use. Known to hurt where colour is the class (flowers,
    ripeness, stained tissue), hue above all.
    """

    brightness: Annotated[float, Ge(0)] = 0.4
    contrast: Annotated[float, Ge(0)] = 0.4
    saturation: Annotated[float, Ge(0)] = 0.4
    hue: Annotated[float, Ge(0), Le(0.5)] = 0.1

    def __post_init__(self) -> None:
        if not any((self.brightness, self.contrast, self.saturation, self.hue)):
            raise ValueError("at least one of brightness, contrast, saturation and hue must be above 0")

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adjust every image.

        Raises:
            NoEffect: the images are gray and neither brightness nor contrast is to change.
        """
        if not (self.brightness or self.contrast):
            _refuse_gray(images, "color_jitter of saturation and hue alone")
        adjustments = (
            (adjust_brightness, self.brightness),
            (adjust_contrast, self.contrast),
            (adjust_saturation, self.saturation),
        )
        for adjust, strength in adjustments:
            if strength:
                images = adjust(images, _factors(images, strength, generator))
        if self.hue:
            images = adjust_hue(images, uniform(images, -self.hue, self.hue, generator))
        return images, targets


TECHNIQUES = (Brightness, ColorJitter, Contrast, Grayscale, Hue, Saturation)
