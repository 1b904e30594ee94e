"""Mix samples of a batch, labels included."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt

from cnnbench.lazy import torch
from cnnbench.technique import technique
from cnnbench_plugins.augmentation._box import inside
from cnnbench_plugins.augmentation._draw import beta, integers, per_sample, select


def mix(
    images: torch.Tensor, targets: torch.Tensor, partners: torch.Tensor, shares: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blend each sample with its partner.

    Args:
        images: float [N, C, H, W].
        targets: class probabilities, float [N, K].
        partners: index of each sample's partner, int64 [N].
        shares: what each sample keeps of itself, 0..1, [N].
    """
    mixed = torch.lerp(images.index_select(0, partners), images, per_sample(shares, images))
    return mixed, torch.lerp(targets[partners], targets, shares.to(targets.dtype).view(-1, 1))


def paste(
    images: torch.Tensor,
    targets: torch.Tensor,
    partners: torch.Tensor,
    row: torch.Tensor,
    column: torch.Tensor,
    shares: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace a box of each sample by the same box of its partner, and targets by the box's share of the area.

    The box has sqrt(1 - share) of the image's height and width, to an even number of pixels below; what lies outside
    the image is cut off and does not count.

    Args:
        images: float [N, C, H, W].
        targets: class probabilities, float [N, K].
        partners: index of each sample's partner, int64 [N].
        row: of the box's centre, int64 [N].
        column: likewise.
        shares: what each sample would keep of itself were the box not cut off, 0..1, [N].
    """
    half = (1 - shares).sqrt() / 2
    up, side = ((half * length).long() for length in images.shape[-2:])
    box = inside(images, row - up, column - side, 2 * up, 2 * side)
    kept = 1 - box.flatten(1).to(torch.float32).mean(1)
    mixed = torch.lerp(targets[partners], targets, kept.to(targets.dtype).view(-1, 1))
    return select(box, images.index_select(0, partners), images), mixed


@technique("augmentation", "mixup")
class Mixup:
    """Replace each sample by a blend of itself and another of the batch, labels alike.

    Zhang et al. 2018, equation 1: x = λ x_i + (1 - λ) x_j and y = λ y_i + (1 - λ) y_j with λ from Beta(alpha, alpha)
    and j from a random permutation of the batch. λ is drawn for every sample; the authors' code draws one a batch. The
    default is from the range of 0.1 to 0.4 that they find best on ImageNet (section 3.1); they use 1 on CIFAR.

    Helps with long training, noisy labels and calibration. Known to underfit with a large alpha, small networks or few
    epochs (section 3.1), and to leave the training loss above zero by construction.
    """

    alpha: Annotated[float, Gt(0)] = 0.2

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Blend every sample with another."""
        partners = torch.randperm(len(images), generator=generator, device=images.device)
        return mix(images, targets, partners, beta(images, self.alpha, generator))


@technique("augmentation", "cutmix")
class CutMix:
    """Replace a box of each sample by the same box of another of the batch, labels by the box's share of the area.

    Yun et al. 2019, equations 1 and 2: λ from Beta(alpha, alpha), a box of sqrt(1 - λ) of height and width around a
    centre that is uniform over the pixels, its other image from a random permutation of the batch, and
    y = λ y_i + (1 - λ) y_j. ! The part of the box that falls outside is cut off, so that λ is computed again from
    what is left, as the authors' code does; with the λ drawn the labels would promise more than the image shows. λ,
    box and partner are drawn for every sample; the authors' code draws λ and box once a batch. alpha = 1, that is λ
    uniform, is theirs.

    Helps with long training, localization and calibration, where mixup leaves no natural texture. Known to underfit
    small networks and few epochs, and to label a box that holds only background with the object's class.
    """

    alpha: Annotated[float, Gt(0)] = 1.0

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Paste a box of another sample into every sample."""
        partners = torch.randperm(len(images), generator=generator, device=images.device)
        row, column = (integers(images, 0, length - 1, generator) for length in images.shape[-2:])
        return paste(images, targets, partners, row, column, beta(images, self.alpha, generator))


TECHNIQUES = (Mixup, CutMix)
