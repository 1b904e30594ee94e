"""The modules behind input normalization. Their buffers travel with the model inputs' device and pickle."""

from __future__ import annotations

import math

import torch
from torch import nn

from cnnbench.errors import Unsupported


class Affine(nn.Module):
    """(x - offset) x scale, per channel.

    Subtracting first loses no digits where a channel hardly varies.

    Args:
        offset, scale: one for each channel, [C], or one for all, [1].
    """

    offset: torch.Tensor
    scale: torch.Tensor

    def __init__(self, offset: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("offset", offset.to(torch.float32).view(1, -1, 1, 1))
        self.register_buffer("scale", scale.to(torch.float32).view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Model inputs from float images [N, C, H, W] in 0..1."""
        return (images - self.offset) * self.scale


class Standardize(nn.Module):
    """Each image minus its own mean, over its own standard deviation, all channels together."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Model inputs from float images [N, C, H, W] in 0..1."""
        std, mean = torch.std_mean(images, (1, 2, 3), correction=0, keepdim=True)
        least = 1 / (255 * math.sqrt(images[0].numel()))
        return (images - mean) / std.clamp_min(least)


class Whiten(nn.Module):
    """W (x - mean) over all values of an image.

    Args:
        mean: [C, H, W].
        matrix: W, symmetric, [C H W, C H W].
    """

    mean: torch.Tensor
    matrix: torch.Tensor

    def __init__(self, mean: torch.Tensor, matrix: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.to(torch.float32).contiguous())
        self.register_buffer("matrix", matrix.to(torch.float32).contiguous())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Model inputs from float images [N, C, H, W] in 0..1.

        Raises:
            Unsupported: the images are not of the size that was fitted.
        """
        if images.shape[1:] != self.mean.shape:
            sizes = (" x ".join(map(str, shape)) for shape in (self.mean.shape, images.shape[1:]))
            raise Unsupported("zca is fitted to images of {}, not {}".format(*sizes))
        # Directions of little variance are differences of large numbers: bfloat16 has too few digits for them.
        with torch.autocast(images.device.type, enabled=False):
            return ((images - self.mean).flatten(1) @ self.matrix).view(images.shape)
