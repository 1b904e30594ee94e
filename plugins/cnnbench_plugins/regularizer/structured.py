"""Terms added to the loss that look at whole filters."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Gt

from cnnbench.lazy import nn, torch
from cnnbench.technique import technique
from cnnbench_plugins.regularizer._weights import filters


def group_norms(rows: torch.Tensor) -> torch.Tensor:
    """Sum of the rows' Euclidean lengths, each times the square root of its size; rows [..., size]."""
    lengths: torch.Tensor = torch.linalg.vector_norm(rows, dim=-1)
    return lengths.sum() * math.sqrt(rows.shape[-1])


def orthogonality_gap(blocks: torch.Tensor) -> torch.Tensor:
    """Sum over blocks W [..., rows, columns] of ‖W Wᵀ - I‖² (Frobenius), with Wᵀ W where W is tall."""
    wide = blocks if blocks.shape[-2] <= blocks.shape[-1] else blocks.mT
    identity = torch.eye(wide.shape[-2], dtype=wide.dtype, device=wide.device)
    return (wide @ wide.mT - identity).square().sum()


@technique("regularizer", "group_lasso")
class GroupLasso:
    """Add the lengths of the layers' filters to the loss, which drives whole filters to 0.

    loss + strength Σ_g sqrt(size of g) ‖w_g‖₂ over groups g: the filters of convolutions, [in / groups, kH, kW] each,
    and the rows of linear layers (Wen et al. 2016, "Learning Structured Sparsity in Deep Neural Networks", section 3.2,
    the filter-wise term). The square root is that of Yuan & Lin 2006, section 2, so that large groups are not favoured;
    Wen et al. leave it out. With it the pull on a filter's weights is ``strength`` in root mean square, as for ``l1``,
    whose default strength it has. Biases are in no group. Under gradient descent filters end near 0, not at it.

    Helps ahead of pruning whole filters. Known not to make a network smaller by itself, and to be undone in part by
    batch normalization, which scales a short filter's output up again.
    """

    strength: Annotated[float, Gt(0)] = 1e-5

    def penalty(self, model: nn.Module, logits: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - the slot's signature
        """Scalar to add to the loss."""
        return self.strength * torch.stack([group_norms(rows) for rows in filters(model)]).sum()


@technique("regularizer", "orthogonal_penalty")
class OrthogonalPenalty:
    """Add to the loss how far each layer's filters are from orthonormal.

    loss + strength Σ ‖W Wᵀ - I‖² (squared Frobenius norm) over layers, W being the weight as a matrix [out, in x kH x
    kW] (Bansal et al. 2018, section 3.1, soft orthogonality). A tall W can have no orthonormal rows: then it is
    ‖Wᵀ W - I‖², the smaller of the two products. (That double form is their section 3.2 with the unreachable half, and
    the constant it adds, left out.) Groups of a grouped convolution are matrices of their own, so that a depthwise
    filter is held to length 1. The default strength is no paper's; theirs falls along the run.

    Helps very deep networks early in training. Known to show no gain beside batch normalization and weight decay in
    Zhang et al. 2020 ("Self-Orthogonality Module"), and to pull against weight decay, which wants the filters at 0.
    """

    strength: Annotated[float, Gt(0)] = 1e-3

    def penalty(self, model: nn.Module, logits: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - the slot's signature
        """Scalar to add to the loss."""
        return self.strength * torch.stack([orthogonality_gap(blocks) for blocks in filters(model)]).sum()


TECHNIQUES = (GroupLasso, OrthogonalPenalty)
