"""Norm layers that torch has not, and one that says more of what it can't do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cnnbench.errors import Unsupported


class ChannelBias(nn.Module):
    """Adds a learnable bias to each channel of [N, C, H, W]: what is left of a norm without its normalization.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape [N, C, H, W] in and out."""
        return x + self.bias[:, None, None]

    def extra_repr(self) -> str:
        """Channels, for printing."""
        return str(self.bias.numel())


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm that says what is wrong with maps of a single pixel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape [N, C, H, W] in and out; raises ``Unsupported`` where H and W are 1."""
        try:
            return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
        except ValueError as error:
            if x.shape[2:].numel() > 1:
                raise
            raise Unsupported(
                f"instance norm of {self.num_features} channels meets feature maps of a single pixel, which has no "
                "variance: use norm 'group', or larger images unless a global pool comes before"
            ) from error

    def folded(self) -> nn.InstanceNorm2d:
        """Torch's own, which what follows training knows."""
        plain = nn.InstanceNorm2d(self.num_features, eps=self.eps, affine=self.affine)
        plain.load_state_dict(self.state_dict(), assign=True)  # float64 stays exact
        return plain
