"""Weight sharing: a layer's weights take few values, listed in a codebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le

from cnnbench import technique
from cnnbench.errors import NoEffect
from cnnbench.lazy import F, nn, torch
from cnnbench.slots import Observer

if TYPE_CHECKING:
    from cnnbench.slots import CompressionContext

_ROUNDS = 100  # of k-means; it has settled long before


def cluster(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One-dimensional k-means (Lloyd) from centroids spread evenly over the range.

    Args:
        values: float [n].
        count: number of centroids k.

    Returns:
        Centroids [k], ascending, and for each value the index of its nearest, [n]. Centroids without values stay
        where they are.
    """
    values = values.double()
    centroids = torch.linspace(values.min().item(), values.max().item(), count, dtype=torch.float64).to(values.device)
    # In one dimension clusters are runs of the sorted values: a round looks at their ends alone.
    ordered = values.sort().values
    running = F.pad(ordered.cumsum(0), (1, 0))
    ends = _ends(ordered, centroids)
    for _ in range(_ROUNDS):
        sums, sizes = running[ends].diff(), ends.diff()
        centroids = torch.where(sizes > 0, sums / sizes.clamp(min=1), centroids)
        moved = _ends(ordered, centroids)
        if torch.equal(moved, ends):
            break
        ends = moved
    return centroids, _nearest(values, centroids)


def _ends(ordered: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Where each centroid's run of the sorted values begins, and where the last one ends, [k + 1]."""
    between = torch.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2, right=True)
    return torch.cat([between.new_zeros(1), between, between.new_full((1,), len(ordered))])


def _nearest(values: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    return torch.bucketize(values, (centroids[1:] + centroids[:-1]) / 2)


class _Shared(Observer):
    """Moves the weights of a cluster together: to their mean after each step."""

    def __init__(self, weight: torch.Tensor, bits: int) -> None:
        flat = weight.detach().flatten()
        self._weight = weight
        # A code for zero, where there are zeros: what was pruned stays so.
        self._kept = flat.nonzero().flatten()
        self._count = 2**bits - (len(self._kept) < len(flat))
        if len(self._kept):
            _, self._index = cluster(flat[self._kept].float(), self._count)

    def share(self) -> None:
        shared = torch.zeros(self._weight.numel(), dtype=torch.float64, device=self._weight.device)
        if len(self._kept):
            values = self._weight.detach().flatten()[self._kept].double()
            sums = torch.zeros(self._count, dtype=torch.float64, device=values.device).index_add_(
                0, self._index, values
            )
            sizes = torch.bincount(self._index, minlength=self._count).clamp(min=1)
            shared[self._kept] = (sums / sizes)[self._index]
        with torch.no_grad():
            self._weight.copy_(shared.view_as(self._weight))

    def after_step(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        self.share()


@technique("compressor", "weight_sharing")
class WeightSharing:
    """Lets the weights of each layer share at most 2^bits values, then fine-tunes these. Simulated.

    Han et al. 2016 (Deep Compression, section 3): k-means over each convolution's and linear layer's weights, with k =
    2^bits centroids that start evenly spread over the range (linear initialization, section 3.2, which the paper finds
    best since it keeps the few large weights). Weights that are 0, as after pruning, stay 0, and 0 takes one of the
    codes. While fine-tuning, the weights of a cluster move together by the mean of their gradients (equation 3 has the
    sum, a learning rate for each cluster that grows with its size). Size is nominal: ``bits`` for each weight's index,
    or for each nonzero one's with its place where that is smaller, and four bytes for each of the 2^bits codebook
    entries; Huffman coding, the paper's last stage, is not counted. The paper uses 8 bits for convolutions and 5 for
    linear layers; 5 is the default here for all. No speed is claimed.

    Helps: size, most after ``prune_magnitude``: the two together are Deep Compression.
    Known not to help: latency; layers with hardly more weights than codebook entries.

    Attributes:
        epochs: of fine-tuning; 0 for none.
        learning_rate: base rate of the fine-tuning, in place of the recipe's.
    """

    bits: Annotated[int, Ge(1), Le(8)] = 5
    epochs: Annotated[int, Ge(0)] = 2
    learning_rate: Annotated[float, Gt(0)] = 0.01

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Share in place; raises ``NoEffect`` where every layer has as few values already."""
        from cnnbench_plugins.compressor._fake_flow import quantizable_layers
        from cnnbench_plugins.compressor._simulated import Simulated, plain_network

        network = plain_network(model)
        weights = {name: layer.get_parameter("weight") for name, layer in quantizable_layers(network).items()}
        if all(len(torch.unique(weight.detach())) <= 2**self.bits for weight in weights.values()):
            raise NoEffect(f"shared nothing: no layer has more than {2**self.bits} different weights")
        shared = [_Shared(weight, self.bits) for weight in weights.values()]
        for one in shared:
            one.share()
        if self.epochs:
            context.train(network, epochs=self.epochs, learning_rate=self.learning_rate, observers=shared)
            for one in shared:
                one.share()
        formats = dict.fromkeys(weights, (self.bits, 4 * 2**self.bits))
        return Simulated(network.eval(), formats, f"{2**self.bits} shared weights a layer are")


TECHNIQUES = (WeightSharing,)
