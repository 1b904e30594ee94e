"""Noise on pixel values."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Le

from cnnbench.lazy import torch
from cnnbench.technique import technique


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
        return torch.add(images, noise.to(images.dtype), alpha=self.std).clamp_(0, 1), targets


@technique("augmentation", "salt_pepper")
class SaltPepper:
    """Turn single pixels of each image black or white.

    Every pixel is replaced with probability ``amount``, by black or white with equal chance and in all channels at
    once (Gonzalez & Woods, Digital Image Processing, section 5.2; drawn for each channel it would be the coloured
    impulse noise of Hendrycks & Dietterich 2019, whose weakest level, 3 %, is the default).

    Helps robustness to dead pixels and transmission errors. Known to cost accuracy on clean images, and to make a
    first convolution with few filters a smoothing one.
    """

    amount: Annotated[float, Gt(0), Le(1)] = 0.03

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sprinkle every image."""
        shape = (len(images), 1, *images.shape[-2:])
        draws = torch.rand(shape, generator=generator, device=images.device, dtype=torch.float32)
        pepper, salt = draws < self.amount / 2, draws >= 1 - self.amount / 2
        return images.masked_fill(pepper, 0).masked_fill_(salt, 1), targets


TECHNIQUES = (GaussianNoise, SaltPepper)
