"""Gaussian smoothing, each sample with a width of its own."""

from __future__ import annotations

import math

from cnnbench.lazy import torch

REACH = 4
"""Standard deviations after which the Gaussian is cut off, as SciPy does; 6e-5 of it lies beyond."""


def radius(sigma: float, size: int) -> int:
    """Pixels to either side that enter a mean, at most what a reflected image of ``size`` pixels has."""
    return min(math.ceil(REACH * sigma), size - 1)


def smoothing(sigmas: torch.Tensor, size: int, reach: int) -> torch.Tensor:
    """The matrices that smooth a row of ``size`` pixels, float32 [N, size, size].

    Row i holds the weights of all pixels in the mean that replaces pixel i. Beyond its ends the row goes on as its
    mirror image without the end pixel twice.

    Args:
        sigmas: standard deviations in pixels, float32 [N], above 0.
        size: pixels, more than ``reach``.
        reach: pixels to either side that enter a mean.
    """
    far = reach + 1
    offsets = torch.arange(far, dtype=torch.float32, device=sigmas.device)
    kernels = torch.exp(offsets.square() / (-2 * sigmas.square()[:, None]))
    kernels = kernels / (2 * kernels.sum(1, keepdim=True) - kernels[:, :1])
    # Every pixel is seen directly, in the mirror at the start and in the mirror at the end, at these distances; the
    # end pixels are not mirrored, and what is out of reach does not count.
    place = torch.arange(size, device=sigmas.device)
    direct = (place - place[:, None]).abs()
    start = (place + place[:, None]).masked_fill(place == 0, far)
    end = (2 * (size - 1) - place - place[:, None]).masked_fill(place == size - 1, far)
    distances = torch.stack((direct, start, end)).clamp_(max=far).view(3, -1)
    # How often the weight at each distance enters each entry of the matrix: the same for all samples.
    counts = torch.zeros(far + 1, size * size, device=sigmas.device)
    counts.scatter_add_(0, distances, torch.ones(1, 1, device=sigmas.device).expand_as(distances))
    return (kernels @ counts[:far]).view(-1, size, size)


def gaussian_blur(images: torch.Tensor, sigmas: torch.Tensor, largest: float) -> torch.Tensor:
    """Smooth each image with a Gaussian, reflecting at the edges.

    torchvision's ``gaussian_blur`` with kernels of 2 r + 1 pixels, r = ceil(4 x largest) or the image's side less 1
    where that is smaller. Columns and rows one after the other, as products with matrices: with kernels each sample
    would need a convolution of its own.

    Args:
        images: float [N, C, H, W].
        sigmas: standard deviations in pixels, float32 [N] or [1] for all, above 0.
        largest: no sigma is above it.
    """
    height, width = images.shape[-2:]
    columns = smoothing(sigmas, height, radius(largest, height))
    rows = columns if height == width else smoothing(sigmas, width, radius(largest, width))
    exact = images if images.dtype in (torch.float32, torch.float64) else images.to(torch.float32)
    along_rows = _multiply(exact, rows.to(exact.dtype))
    return _multiply(along_rows.mT, columns.to(exact.dtype)).mT.to(images.dtype)


def _multiply(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Each row of pixels times the sample's own matrix, or the only one, all channels in one product."""
    count, channels, height, width = images.shape
    rows = images.reshape(count, channels * height, width)
    return (rows @ (matrices[0] if len(matrices) == 1 else matrices).mT).view(count, channels, height, width)
