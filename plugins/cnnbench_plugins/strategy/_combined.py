"""Networks that hold other networks and average their answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

if TYPE_CHECKING:
    from collections.abc import Sequence


@fx.wrap  # its number of answers and its precision are no values that a symbolic trace could know
def log_mean_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Logarithm of the mean of the class probabilities: [M, N, K] logits of M answers to [N, K].

    In float32 at least: under autocast small probabilities would be lost.
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return logits.log_softmax(-1).logsumexp(0) - math.log(len(logits))


def views(images: torch.Tensor, *, hflip: bool, shift: int) -> list[torch.Tensor]:
    """The images themselves, then mirrored, then each of these moved up, down, left and right.

    What a move uncovers repeats the edge, which fits any input normalization.

    Args:
        images: float [N, C, H, W].
        hflip: whether to mirror left and right.
        shift: pixels to move by; 0 for no move.
    """
    found = [images, images.flip(-1)] if hflip else [images]
    if not shift:
        return found
    height, width = images.shape[-2:]
    moved = []
    for image in found:
        padded = nn.functional.pad(image, (shift, shift, shift, shift), mode="replicate")
        for down, right in ((-shift, 0), (shift, 0), (0, -shift), (0, shift)):
            top, left = shift - down, shift - right
            moved.append(padded[..., top : top + height, left : left + width])
    return found + moved


class Ensemble(nn.Module):
    """Several networks whose class probabilities are averaged.

    Args:
        members: each from images [N, C, H, W] to logits [N, K].
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Log-probabilities [N, K], which are logits of the averaged probabilities."""
        return log_mean_softmax(torch.stack([member(images) for member in self.members]))


class ViewAverage(nn.Module):
    """A network that answers for several views of each image at once and averages the class probabilities.

    Args:
        model: from images [N, C, H, W] to logits [N, K].
        hflip: whether mirrored views are asked about.
        shift: pixels by which further views are moved; 0 for none.
    """

    def __init__(self, model: nn.Module, *, hflip: bool, shift: int) -> None:
        super().__init__()
        self.model = model
        self.hflip = hflip
        self.shift = shift

    def extra_repr(self) -> str:
        """The views, for ``print(model)``."""
        return f"hflip={self.hflip}, shift={self.shift}"

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Log-probabilities [N, K]."""
        asked = views(images, hflip=self.hflip, shift=self.shift)
        logits = self.model(torch.cat(asked))
        return log_mean_softmax(logits.unflatten(0, (len(asked), -1)))
