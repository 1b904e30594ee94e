"""Mix samples of a batch, labels included."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt

from cnnbench.lazy import torch
from cnnbench.technique import technique
from cnnbench_plugins.augmentation._draw import beta, per_sample


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
    mixed = torch.lerp(images[partners], images, per_sample(shares, images))
    return mixed, torch.lerp(targets[partners], targets, shares.to(targets.dtype).view(-1, 1))


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


TECHNIQUES = (Mixup,)
