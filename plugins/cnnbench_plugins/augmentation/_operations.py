"""The operations that augmentation policies choose from, each sample with its own.

Samples are sorted by operation, so that each operation acts on a slice of the batch. The one thing that the host must
know is how long the slices are: one look at the device a batch, for all rounds together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnbench.lazy import torch
from cnnbench_plugins.augmentation import _color, _geometry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnbench_plugins.augmentation._geometry import Interpolation

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
    "brightness",
    "color",
    "contrast",
    "sharpness",
)
"""Operations are numbered by their place here."""

_GEOMETRIC = range(1, 6)
_SIZED = _GEOMETRIC.stop


@dataclass(frozen=True)
class Space:
    """How far each operation goes at strength 1; at 0 each but the last two leaves the image (almost) alone.

    At strength t between: posterize keeps weakest_bits to strongest_bits bits, in proportion and rounded; solarize
    inverts values at or above 1 - t; autocontrast and equalize have no strength.

    Attributes:
        shear: pixels of shift for each pixel from the image's upper or left edge.
        shift_share: of the image's width or height, by which it moves ...
        shift_pixels: ... beside so many pixels; whole ones are moved, cut towards 0.
        degrees: of rotation about the centre.
        blend: change of brightness, colour, contrast and sharpness as a share of the image's own.
        weakest_bits: what posterize keeps at strength 0.
        strongest_bits: what it keeps at 1.
        interpolation: of shear and rotation. What was outside the image is black.
    """

    shear: float
    shift_share: float
    shift_pixels: float
    degrees: float
    blend: float
    weakest_bits: int
    strongest_bits: int
    interpolation: Interpolation


def tallies(operations: torch.Tensor) -> list[list[int]]:
    """How many samples have each operation in each round; waits for the device.

    Args:
        operations: numbers of ``OPERATIONS``, int64 [rounds, N].
    """
    numbers = torch.arange(len(OPERATIONS), device=operations.device)
    counts: list[list[int]] = (operations[:, :, None] == numbers).sum(1).tolist()
    return counts


def apply(
    space: Space,
    images: torch.Tensor,
    operations: torch.Tensor,
    strengths: torch.Tensor,
    signs: torch.Tensor,
    tally: Sequence[int],
) -> torch.Tensor:
    """Apply to each sample its operation.

    Args:
        space: what strengths mean.
        images: float [N, C, H, W] in 0..1, gray or RGB.
        operations: numbers of ``OPERATIONS``, int64 [N].
        strengths: 0..1, [N].
        signs: 1 or -1, which way to move, turn or blend, [N].
        tally: of these operations, from ``tallies``.
    """
    order = operations.argsort(stable=True)
    lengths = [tally[0], sum(tally[1:_SIZED]), *tally[_SIZED:]]
    slices = zip(
        *(torch.split(t.index_select(0, order), lengths) for t in (images, operations, strengths, signs)), strict=True
    )
    parts = [images[:0]]
    for number, (part, own, strength, sign) in zip((0, 1, *range(_SIZED, len(OPERATIONS))), slices, strict=True):
        if len(part) and number in _GEOMETRIC:
            parts.append(_move(space, part, own, strength * sign))
        elif len(part):
            parts.append(_change(space, part, OPERATIONS[number], strength, sign))
    return torch.cat(parts).index_select(0, order.argsort())


def _move(space: Space, images: torch.Tensor, operations: torch.Tensor, strengths: torch.Tensor) -> torch.Tensor:
    """The geometric operations, all at once: every sample has one of five parameters, and 0 for the rest."""
    height, width = images.shape[-2:]
    shear_x, shear_y, right, down, turn = (torch.where(operations == n, strengths, 0) for n in _GEOMETRIC)
    shear_x, shear_y = shear_x * space.shear, shear_y * space.shear
    right = (right * (space.shift_share * width + space.shift_pixels)).trunc()
    down = (down * (space.shift_share * height + space.shift_pixels)).trunc()
    return _geometry.affine(
        images,
        degrees=turn * -space.degrees,  # policies turn as torchvision's ``rotate``, counter-clockwise
        # The papers shear from the upper left corner: about the centre, and shifted.
        right=right - shear_x * (height / 2),
        down=down - shear_y * (width / 2),
        shear_x=torch.rad2deg(torch.atan(shear_x)),
        shear_y=torch.rad2deg(torch.atan(shear_y)),
        interpolation=space.interpolation,
    )


def _change(
    space: Space, images: torch.Tensor, name: str, strengths: torch.Tensor, signs: torch.Tensor
) -> torch.Tensor:
    """One operation on values, pixels staying where they are."""
    factors = 1 + space.blend * strengths * signs
    match name:
        case "posterize":
            bits = torch.round(space.weakest_bits - (space.weakest_bits - space.strongest_bits) * strengths)
            return _color.posterize(images, bits)
        case "solarize":
            return _color.solarize(images, 1 - strengths)
        case "autocontrast":
            return _color.autocontrast(images)
        case "equalize":
            return _color.equalize(images)
        case "brightness":
            return _color.adjust_brightness(images, factors)
        case "color":
            return _color.adjust_saturation(images, factors)
        case "contrast":
            return _color.adjust_contrast(images, factors)
        case "sharpness":
            return _color.adjust_sharpness(images, factors)
        case _:
            return images
