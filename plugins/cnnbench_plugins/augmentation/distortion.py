"""Bend what is in the image: perspective, elastic."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Le

from cnnbench.lazy import torch
from cnnbench.technique import technique
from cnnbench_plugins.augmentation._blur import gaussian_blur
from cnnbench_plugins.augmentation._draw import uniform
from cnnbench_plugins.augmentation._geometry import elastic, perspective


@technique("augmentation", "perspective")
class Perspective:
    """Show each image as a plane seen at a random slant.

    Each corner moves inwards by uniform parts of half the width and half the height, up to ``distortion``; the
    projective map that takes the old corners to the new is applied with bilinear interpolation, and zeros are left
    outside. Draws are continuous, where torchvision's ``RandomPerspective`` moves corners by whole pixels. Its default
    is a distortion of 0.5 for half of the images; here every image is moved, by up to 0.3. Beyond 2/3 the corners need
    not form a convex shape any more.

    Helps on flat things photographed by hand: signs, documents, packages. Known not to help where camera and object
    are fixed, and to hurt small images, which lose pixels to the black rim.
    """

    distortion: Annotated[float, Gt(0), Le(0.6)] = 0.3

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Slant every image."""
        height, width = images.shape[-2:]

        def draw(side: int) -> torch.Tensor:
            """How far inwards a corner moves along a side, [N]."""
            return uniform(images, 0, self.distortion * side / 2, generator)

        x = (draw(width), width - draw(width), width - draw(width), draw(width))
        y = (draw(height), draw(height), height - draw(height), height - draw(height))
        corners = torch.stack((torch.stack(x, 1), torch.stack(y, 1)), 2)
        return perspective(images, corners), targets


@technique("augmentation", "elastic")
class Elastic:
    """Bend each image by a smooth random displacement of its pixels.

    Simard et al. 2003, section 2: a field uniform in [-1, 1] for each pixel and direction, smoothed by a Gaussian of
    standard deviation ``sigma`` and multiplied by ``alpha``, says in pixels where each pixel is read from; bilinear,
    zeros outside. The displacement's standard deviation is about 0.16 alpha / sigma, that is 1.4 pixels at their
    values, the defaults, for 29 x 29 digits. In torchvision's ``ElasticTransform`` alpha counts half pixels, so that
    half of its alpha is needed here. Sigma is the grain: below about 2 the image tears, at the size of the image it
    is shifted as a whole.

    Helps on handwriting and tissue, which really deform so. Known not to suit rigid objects, and to hurt where
    1.4 pixels are a lot: take a smaller alpha on 8 x 8 images.
    """

    alpha: Annotated[float, Gt(0)] = 34.0
    sigma: Annotated[float, Gt(0)] = 4.0

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Bend every image."""
        shape = (len(images), 2, *images.shape[-2:])
        field = torch.rand(shape, generator=generator, device=images.device, dtype=torch.float32)
        sigma = torch.full((1,), self.sigma, device=images.device)
        return elastic(images, self.alpha * gaussian_blur(2 * field - 1, sigma, self.sigma)), targets


TECHNIQUES = (Elastic, Perspective)
