"""The layer behind ``timm_dropblock``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from timm.layers import drop_block_2d

from cnnbench_plugins.regularizer._layers import BlockDropout

if TYPE_CHECKING:
    import torch


class TimmBlockDropout(BlockDropout):
    """Drop blocks of neighbouring pixels of feature maps as timm does.

    Args:
        p: about the share of pixels dropped in the end.
        block_size: height and width of a block.
        couple_channels: one mask for all channels of a sample.
        with_noise: normal noise in the blocks.
    """

    def __init__(self, p: float, block_size: int, *, couple_channels: bool, with_noise: bool) -> None:
        super().__init__(p, block_size)
        self.couple_channels = couple_channels
        self.with_noise = with_noise

    def dropped(self, features: torch.Tensor) -> torch.Tensor:
        """Maps [N, C, H, W] of more than one pixel with blocks dropped."""
        out: torch.Tensor = drop_block_2d(
            features,
            self.share * self.p,
            self.block_size,
            couple_channels=self.couple_channels,
            with_noise=self.with_noise,
        )
        return out
