"""Fine-grained structured sparsity: at most n of every m consecutive weights are not zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt

from cnnbench import technique
from cnnbench.errors import NoEffect
from cnnbench.lazy import nn, torch
from cnnbench_plugins.compressor._finetune import finetune
from cnnbench_plugins.compressor._sparsity import Held, nonzeros, prunable_weights

if TYPE_CHECKING:
    from cnnbench.slots import CompressionContext


def n_of_m(weight: torch.Tensor, n: int, m: int) -> torch.Tensor | None:
    """Mask of the n largest magnitudes of every m consecutive weights along the input dimension.

    Args:
        weight: [out, in, ...]; inputs of one filter position are neighbours, as in sparse matrix kernels.
        n: to keep of each m; of equal magnitudes the first stay.
        m: length of a group.

    Returns:
        Boolean mask of the weight's shape, or None where m does not divide the number of inputs.
    """
    if weight.shape[1] % m:
        return None
    rows = weight.detach().abs().movedim(1, -1)
    order = rows.reshape(*rows.shape[:-1], -1, m).argsort(dim=-1, descending=True, stable=True)
    keep = torch.zeros_like(order, dtype=torch.bool).scatter_(-1, order[..., :n], True)
    return keep.flatten(-2).movedim(-1, 1)


@technique("compressor", "prune_n_m")
class PruneNM:
    """Keeps the n largest of every m consecutive weights, the pattern of sparse tensor cores, then fine-tunes them.

    Mishra et al. 2021 (Accelerating Sparse Deep Neural Networks, section 4): of every m consecutive weights along the
    input dimension, [out, in] of a linear layer and [out, in/groups, kh, kw] of a convolution at each filter position,
    the n of largest magnitude stay; 2:4 is what NVIDIA's Ampere and later can skip over. Layers whose number of inputs
    (within a group) m does not divide stay dense: first layers of gray or colour images, depthwise convolutions.
    Fine-tuning with a fixed mask follows the paper's workflow; epochs and rate as in ``prune_magnitude``; with
    ``epochs = 0`` only batch-norm statistics are recomputed.

    The size is nominal: values of the kept weights and ceil(log2 m) bits for the position of each. No speed is
    claimed: FLOPs and latency are those of dense kernels, which multiply by zeros as by anything else.

    Helps: inference on GPUs with sparse tensor cores, through kernels that are not used here.
    Known not to help: on CPU; against unstructured pruning of the same sparsity, which has more choice.

    Attributes:
        learning_rate: base rate of the fine-tuning, in place of the recipe's.
    """

    n: Annotated[int, Ge(1)] = 2
    m: Annotated[int, Gt(1)] = 4
    epochs: Annotated[int, Ge(0)] = 2
    learning_rate: Annotated[float, Gt(0)] = 0.01

    def __post_init__(self) -> None:
        if self.n >= self.m:
            raise ValueError(f"expected n below m, found n = {self.n}, m = {self.m}")

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Prune in place and wrap; raises ``NoEffect`` where no weight becomes zero."""
        from cnnbench_plugins.compressor._pattern import SparsePattern
        from cnnbench_plugins.compressor._simulated import plain_network

        network = plain_network(model)
        before = nonzeros(network)
        weights = prunable_weights(network)
        masks = {name: mask for name, w in weights.items() if (mask := n_of_m(w, self.n, self.m)) is not None}
        held = Held(network, masks)
        held.enforce()
        if nonzeros(network) >= before:
            reason = "all were of the pattern before" if masks else f"{self.m} divides no layer's number of inputs"
            raise NoEffect(f"pruned nothing: {reason} ({len(masks)} of {len(weights)} layers can have it)")
        finetune(network, context, self.epochs, self.learning_rate, held)
        return SparsePattern(network, masks, self.n, self.m)


TECHNIQUES = (PruneNM,)
