"""Boxes in images, one for each sample."""

from __future__ import annotations

from cnnbench.lazy import torch


def inside(
    images: torch.Tensor,
    top: torch.Tensor,
    left: torch.Tensor,
    height: torch.Tensor | int,
    width: torch.Tensor | int,
) -> torch.Tensor:
    """Whether each pixel lies in its image's box, bool [N, 1, H, W]; what lies outside the image is cut off.

    Args:
        images: [N, C, H, W].
        top: first row, int64 [N], may be negative.
        left: first column, likewise.
        height: rows, int64 [N] or one for all.
        width: columns, likewise.
    """
    within = [
        (positions >= start[:, None]) & (positions < (start + length)[:, None])
        for positions, start, length in (
            (torch.arange(images.shape[-2], device=images.device), top, height),
            (torch.arange(images.shape[-1], device=images.device), left, width),
        )
    ]
    return (within[0][:, :, None] & within[1][:, None, :])[:, None]
