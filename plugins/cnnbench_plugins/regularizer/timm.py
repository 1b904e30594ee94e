"""DropBlock as timm has it."""

from __future__ import annotations

from cnnbench.lazy import nn
from cnnbench.technique import Requirement, technique
from cnnbench_plugins.regularizer.dropblock import DropBlock


@technique(
    "regularizer", "timm_dropblock", requires=(Requirement("timm", "timm"),), example={"p": 0.3, "block_size": 3}
)
class TimmDropBlock(DropBlock):
    """Zero square blocks of feature maps at random during training, by the package timm.

    R. Wightman, "PyTorch Image Models" (https://github.com/huggingface/pytorch-image-models),
    ``timm.layers.drop_block_2d``: as ``dropblock`` (Ghiasi et al. 2018), after every activation and with the same
    schedule, but block centres lie anywhere on the map, so that blocks at its edge are cut off, and one mask serves all
    channels of a sample unless ``couple_channels = false``. With ``with_noise`` blocks are filled with normal noise in
    place of zeros, and the rest is not scaled.

    Helps as ``dropblock``; with one mask for all channels no neighbouring channel gives away what a block hides.
    Known to hurt short runs, and to be harsh with blocks as large as the map: all channels then vanish together.

    Attributes:
        p: about the share of pixels dropped in the end.
        block_size: height and width of a block, in pixels of the feature map.
        couple_channels: one mask for all channels of a sample.
        with_noise: normal noise in the blocks.
    """

    couple_channels: bool = True
    with_noise: bool = False

    def __call__(self, module: nn.Module) -> nn.Module:
        """An activation followed by dropped blocks."""
        from cnnbench_plugins.regularizer._timm import TimmBlockDropout

        layer = TimmBlockDropout(
            self.p, self.block_size, couple_channels=self.couple_channels, with_noise=self.with_noise
        )
        return nn.Sequential(module, layer)


TECHNIQUES = (TimmDropBlock,)
