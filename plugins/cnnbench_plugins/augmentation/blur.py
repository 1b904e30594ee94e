"""Smooth images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt, Le

from cnnbench.technique import technique
from cnnbench_plugins.augmentation._blur import gaussian_blur
from cnnbench_plugins.augmentation._draw import select, uniform

if TYPE_CHECKING:
    from cnnbench.lazy import torch


@technique("augmentation", "gaussian_blur")
class GaussianBlur:
    """Smooth each image with a Gaussian of random width, with probability p.

    The standard deviation, in pixels, is uniform in [sigma_min, sigma_max]; edges are reflected, and the kernel reaches
    4 sigma_max. SimCLR blurs half of the images with 0.1 to 2 at 224 x 224 (Chen et al. 2020, appendix A) and leaves
    blur out on CIFAR-10 (appendix B.9); the default goes up to 1, as images here are small.

    Helps robustness to defocus, motion and low resolution. Known to hurt where fine texture is the class, and on images
    of few pixels, which have nothing finer to lose.
    """

    sigma_min: Annotated[float, Gt(0)] = 0.1
    sigma_max: Annotated[float, Gt(0)] = 1.0
    p: Annotated[float, Gt(0), Le(1)] = 0.5

    def __post_init__(self) -> None:
        if self.sigma_min > self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} is above sigma_max {self.sigma_max}")

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Smooth the chosen images."""
        sigmas = uniform(images, self.sigma_min, self.sigma_max, generator)
        chosen = uniform(images, 0, 1, generator) < self.p
        return select(chosen, gaussian_blur(images, sigmas, self.sigma_max), images), targets


TECHNIQUES = (GaussianBlur,)
