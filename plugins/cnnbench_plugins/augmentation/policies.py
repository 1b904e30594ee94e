"""Random choices among many operations, each sample its own: RandAugment, TrivialAugment, AugMix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le

from cnnbench.lazy import torch
from cnnbench.technique import technique
from cnnbench_plugins.augmentation._draw import beta, dirichlet, integers, per_sample, uniform
from cnnbench_plugins.augmentation._operations import OPERATIONS, Space, apply, tallies

if TYPE_CHECKING:
    from collections.abc import Callable

LEVELS = 30
"""The strongest level of RandAugment and TrivialAugment, from 0."""

RANDAUGMENT = Space(
    shear=0.3,
    shift_share=150 / 331,
    shift_pixels=0,
    degrees=30,
    blend=0.9,
    weakest_bits=8,
    strongest_bits=4,
    interpolation="nearest",
)
"""AutoAugment's ranges (Cubuk et al. 2019, table 6), whose 150 pixels are of images 331 pixels wide."""

TRIVIAL_AUGMENT_WIDE = Space(
    shear=0.99,
    shift_share=0,
    shift_pixels=32,
    degrees=135,
    blend=0.99,
    weakest_bits=8,
    strongest_bits=2,
    interpolation="nearest",
)
"""Müller & Hutter 2021, table of the wide space."""

AUGMIX = Space(
    shear=0.3,
    shift_share=1 / 3,
    shift_pixels=0,
    degrees=30,
    blend=0,  # brightness, colour, contrast and sharpness are not among its operations
    weakest_bits=4,
    strongest_bits=0,
    interpolation="bilinear",
)
"""The ranges of the authors' code of Hendrycks et al. 2020."""

_ALL = (0, OPERATIONS.index("sharpness"))
_UNCORRUPTED = (OPERATIONS.index("shear_x"), OPERATIONS.index("equalize"))


def _rounds(count: int, draw: Callable[[], torch.Tensor]) -> torch.Tensor:
    """So many draws [N], as [count, N]."""
    return torch.stack([draw() for _ in range(count)])


def _signs(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return 2 * integers(images, 0, 1, generator) - 1


@technique("augmentation", "randaugment")
class RandAugment:
    """Apply to each image num_ops random operations, all of the same strength.

    Cubuk et al. 2020: each of 14 operations (identity, shear and translation along x and y, rotation, brightness,
    colour, contrast, sharpness, posterize, solarize, autocontrast, equalize) is as likely as any other, with
    replacement, and has a direction of its own. ``magnitude`` 30 is the strongest: shear 0.3, translation by 150/331 of
    the side, rotation by 30 degrees, blending factors 1 ± 0.9, posterize to 4 bits, solarize from 0. Nearest-neighbour
    interpolation, black outside. ! The paper's text calls 10 the strongest while its searches go beyond; the scale of
    0 to 30 with these ranges is torchvision's, in which strength always grows with magnitude. Defaults of 2 and 9 are
    theirs for ResNet-50 on ImageNet.

    Helps larger networks, larger data sets and long training, with a magnitude that grows with them (section 4). Known
    to need that tuning: too strong hurts small networks and short training. See ``trivial_augment``, which has no
    option. On digits and signs, mind that rotation and inversion can change a class.
    """

    num_ops: Annotated[int, Ge(1)] = 2
    magnitude: Annotated[int, Ge(0), Le(LEVELS)] = 9

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Change every image."""
        operations = _rounds(self.num_ops, lambda: integers(images, *_ALL, generator))
        signs = _rounds(self.num_ops, lambda: _signs(images, generator))
        strengths = torch.full_like(signs[0], self.magnitude, dtype=torch.float32) / LEVELS
        for operation, sign, tally in zip(operations, signs, tallies(operations), strict=True):
            images = apply(RANDAUGMENT, images, operation, strengths, sign, tally)
        return images, targets


@technique("augmentation", "trivial_augment")
class TrivialAugment:
    """Apply to each image one random operation of random strength.

    Müller & Hutter 2021, wide space: one of the 14 operations of ``randaugment``, its strength uniform over 31 levels
    up to shear 0.99, translation by 32 pixels, rotation by 135 degrees, blending factors 1 ± 0.99, posterize to 2 bits
    and solarize from 0, in either direction. Nearest-neighbour interpolation, black outside. There is nothing to tune.
    ! 32 pixels are the paper's for images of any size: at 32 x 32 the strongest translation leaves nothing.

    Helps as much as tuned policies on photographs of 32 x 32 pixels and more, with long training. Known to hurt small
    networks and short training, and, by rotations of up to 135 degrees, data with an orientation of its own.
    """

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Change every image."""
        operations = integers(images, *_ALL, generator)
        strengths = integers(images, 0, LEVELS, generator).to(torch.float32) / LEVELS
        signs = _signs(images, generator)
        (tally,) = tallies(operations[None])
        return apply(TRIVIAL_AUGMENT_WIDE, images, operations, strengths, signs, tally), targets


@technique("augmentation", "augmix")
class AugMix:
    """Blend each image with a mixture of several randomly augmented versions of itself.

    Hendrycks et al. 2020, algorithm 1: x' = m x + (1 - m) Σ w_i chain_i(x) with m from Beta(alpha, alpha), w from a
    Dirichlet distribution of ``width`` times alpha, and each chain ``depth`` operations in a row, or 1 to 3 at random
    where depth is left out. Operations are nine: shear and translation along x and y, rotation, posterize, solarize,
    autocontrast, equalize; ! not brightness, contrast, colour and sharpness, which torchvision adds, because they
    overlap with the corruptions that robustness is tested by. Each has a level uniform in [0.1, severity] of 10, where
    10 is shear 0.3, translation by a third of the side, rotation by 30 degrees, posterize to 0 bits and solarize from
    0. Bilinear interpolation, black outside. Defaults are theirs.

    Left out: the paper's second half, a Jensen-Shannon loss between predictions for the image and two such mixtures,
    which sees every image three times a step. The mixture alone gains less robustness than both together (table 5).

    Helps robustness to corruptions and calibration; images stay close to the data. Known to gain little on clean
    accuracy.
    """

    severity: Annotated[int, Ge(1), Le(10)] = 3
    width: Annotated[int, Ge(1)] = 3
    depth: Annotated[int, Ge(1)] | None = None
    alpha: Annotated[float, Gt(0)] = 1.0

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Change every image."""
        chains = images.repeat(self.width, 1, 1, 1)
        depth = self.depth or 3
        operations = _rounds(depth, lambda: integers(chains, *_UNCORRUPTED, generator))
        strengths = _rounds(depth, lambda: uniform(chains, 0.1, self.severity, generator)) / 10
        signs = _rounds(depth, lambda: _signs(chains, generator))
        if self.depth is None:
            depths = integers(chains, 1, depth, generator)
            operations *= torch.arange(depth, device=images.device)[:, None] < depths  # 0 is the identity
        own = beta(images, self.alpha, generator)
        weights = dirichlet(images, self.alpha, self.width, generator)

        for operation, strength, sign, tally in zip(operations, strengths, signs, tallies(operations), strict=True):
            chains = apply(AUGMIX, chains, operation, strength, sign, tally)
        shares = weights.to(images.dtype).view(self.width, -1, 1, 1, 1)
        mixture = (shares * chains.view(self.width, *images.shape)).sum(0)
        return torch.lerp(mixture, images, per_sample(own, images)).clamp_(0, 1), targets


TECHNIQUES = (RandAugment, TrivialAugment, AugMix)
