"""Blocks of neighbouring pixels dropped at random during training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Lt

from cnnbench.errors import NoEffect
from cnnbench.lazy import nn
from cnnbench.technique import technique

if TYPE_CHECKING:
    from cnnbench.lazy import torch


@technique("regularizer", "dropblock")
class DropBlock:
    """Zero square blocks of feature maps at random during training, after every activation.

    With b for ``block_size``, a block starts at each position where a whole one fits with probability gamma = p / b² x
    H W / ((H - b + 1) (W - b + 1)), in every channel of every sample on its own; y = x M count(M) / count_ones(M) with
    the mask M of the whole batch (Ghiasi et al. 2018, algorithm 1 and equation 1). The share dropped is p only about,
    as blocks overlap. Blocks are cut to the size of smaller maps; maps of one pixel, and features without height and
    width, pass as they are. p grows evenly from 0 in the first epoch to its full value in the last (scheduled
    DropBlock, section 3.1). The defaults are the paper's for ImageNet, where the maps it acts on, those of the last two
    stages, are 28 pixels wide and less; maps of 8 pixels want blocks of 3.

    Helps convolutional networks at long budgets: single dropped pixels are guessed from their neighbours. Known to hurt
    short runs, and with blocks as large as the map to be no more than ``spatial_dropout``.
    """

    p: Annotated[float, Gt(0), Lt(1)] = 0.1
    block_size: Annotated[int, Ge(1)] = 7

    def prepare(self, model: nn.Module, generator: torch.Generator) -> int:  # noqa: ARG002 - the slot's signature
        """Insert the layers in place and return their number.

        Raises:
            NoEffect: the model has no convolution, so no feature maps, or no activation module.
        """
        from cnnbench_plugins.regularizer._insert import insert_behind_activations

        if not any(isinstance(m, nn.Conv2d) for m in model.modules()):
            raise NoEffect("dropblock acts on feature maps, and the model has no convolution that makes any")
        return insert_behind_activations(self, model)

    def __call__(self, module: nn.Module) -> nn.Module:
        """An activation followed by dropped blocks."""
        from cnnbench_plugins.regularizer._layers import BlockDropout

        return nn.Sequential(module, BlockDropout(self.p, self.block_size))

    def epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Set the share that this epoch drops; a run of one epoch drops the full share."""
        from cnnbench_plugins.regularizer._layers import BlockDropout

        for layer in model.modules():
            if isinstance(layer, BlockDropout):
                layer.share = epoch / (epochs - 1) if epochs > 1 else 1.0


TECHNIQUES = (DropBlock,)
