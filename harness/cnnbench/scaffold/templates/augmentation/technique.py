"""Hide-and-seek: random patches of a grid are hidden."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from cnnbench import technique
from cnnbench.lazy import torch


# Options with which nothing changes: the conformance kit holds the technique to that.
@technique("augmentation", "template_name", no_op={"p": 0.0})
class Template:
    """Hide random patches of each image behind the batch's mean colour.

    Singh & Lee 2017, https://arxiv.org/abs/1704.04545, section 3.1: each image [C, H, W] is cut into cells x cells
    patches, and each patch is hidden with probability p by itself, in all channels at once. Hidden pixels get the mean
    of their channel over the batch (in the paper, over the training set). Targets [N, K] stay.

    Helps networks that lean on one part of the object: they must look at the others too. Known not to help where the
    class lies in one small detail, which it hides.

    Attributes:
        cells: patches along each side.
        p: probability with which a patch is hidden.
    """

    # Options are typed fields; their constraints are checked when a suite is read, before anything runs.
    cells: Annotated[int, Ge(1)] = 4
    p: Annotated[float, Ge(0), Le(1)] = 0.25

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """New images and targets; the generator, on the images' device, is the only source of randomness."""
        count, _, height, width = images.shape
        shape = (count, 1, self.cells, self.cells)
        hidden = torch.rand(shape, generator=generator, device=images.device) < self.p
        rows = torch.arange(height, device=images.device) * self.cells // height  # the patch of each row
        columns = torch.arange(width, device=images.device) * self.cells // width
        mean = images.mean((0, 2, 3), keepdim=True)
        return torch.where(hidden[:, :, rows[:, None], columns], mean, images), targets
