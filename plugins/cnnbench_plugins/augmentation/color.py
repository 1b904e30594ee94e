"""Change pixel values and leave every pixel where it is: colour jitter, noise."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le

from cnnbench.lazy import torch
from cnnbench.technique import technique
from cnnbench_plugins.augmentation._draw import per_sample, uniform

# ITU-R BT.601 luma, to the digits that torchvision and Pillow use.
_LUMA = (0.2989, 0.587, 0.114)
# RGB from hue: position of each channel on the colour circle, in sixths.
_SEXTANTS = (5.0, 3.0, 1.0)


def _channels(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The three channels of RGB images, each [N, 1, H, W]."""
    return images[:, 0:1], images[:, 1:2], images[:, 2:3]


def luma(images: torch.Tensor) -> torch.Tensor:
    """Gray [N, 1, H, W] of RGB images; gray images are their own."""
    if images.shape[1] == 1:
        return images
    red, green, blue = _channels(images)
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def _blend(images: torch.Tensor, other: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """``other`` at factor 0, ``images`` at 1, beyond them above 1; cut to 0..1."""
    return torch.lerp(other, images, per_sample(factors, images)).clamp_(0, 1)


def adjust_brightness(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Scale each image's values by its factor: 0 is black, 1 leaves it, cut to 0..1.

    Args:
        images: float [N, C, H, W] in 0..1.
        factors: 0 or more, [N].
    """
    return (images * per_sample(factors, images)).clamp_(0, 1)


def adjust_contrast(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Blend each image with its own mean gray: factor 0 is that gray, 1 leaves it. Arguments as for brightness."""
    mean = luma(images).mean((1, 2, 3), keepdim=True)
    return _blend(images, mean.expand_as(images), factors)


def adjust_saturation(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Blend each image with its gray version: factor 0 is gray, 1 leaves it. Gray images are returned as they are."""
    if images.shape[1] == 1:
        return images
    return _blend(images, luma(images).expand_as(images), factors)


def adjust_hue(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Turn each image's colours around the HSV circle. Gray images are returned as they are.

    With value v, chroma c and hue h in turns, a channel at sextant n is v - c x clamp(min(k, 4 - k), 0, 1) where
    k = (n + 6h) mod 6; Smith 1978 in closed form.

    Args:
        images: float [N, 3, H, W] in 0..1, or gray.
        turns: [N], of which -0.5 and 0.5 both give the complementary colour.
    """
    if images.shape[1] == 1:
        return images
    red, green, blue = _channels(images)
    value = images.amax(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    divisor = torch.where(chroma == 0, 1, chroma)  # of a gray pixel the hue does not matter
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sextants = torch.tensor(_SEXTANTS, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    k = torch.remainder(sextants + hue + 6 * per_sample(turns, images), 6)
    return value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)


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
        """Adjust every image."""
        adjustments = (
            (adjust_brightness, self.brightness),
            (adjust_contrast, self.contrast),
            (adjust_saturation, self.saturation),
        )
        for adjust, strength in adjustments:
            if strength:
                images = adjust(images, uniform(images, max(0.0, 1 - strength), 1 + strength, generator))
        if self.hue:
            images = adjust_hue(images, uniform(images, -self.hue, self.hue, generator))
        return images, targets


@technique("augmentation", "gaussian_noise")
class GaussianNoise:
    """Add independent Gaussian noise to every pixel.

    x + N(0, std²), cut to 0..1; ``std`` is in units of the 0..1 pixel scale (25.5 of 255 at the default of 0.1, the
    default of torchvision as well). Bishop 1995: to first order, training with noise on the input is Tikhonov
    regularization.

    Helps robustness to sensor noise and very small training sets. Known to cost accuracy on clean images at strengths
    that help on noisy ones (Rusak et al. 2020).
    """

    std: Annotated[float, Gt(0), Le(1)] = 0.1

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add noise to every image."""
        noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=torch.float32)
        return (images + self.std * noise.to(images.dtype)).clamp_(0, 1), targets


TECHNIQUES = (ColorJitter, GaussianNoise)
