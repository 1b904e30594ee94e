"""Structured pruning: whole channels are removed, and tensors really become smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Lt

from cnnbench import Requirement, technique
from cnnbench.lazy import nn, torch
from cnnbench_plugins.compressor._changeable import check_changeable
from cnnbench_plugins.compressor._channels import remove_channels
from cnnbench_plugins.compressor._finetune import finetune
from cnnbench_plugins.compressor._taylor import gate_gradients, taylor_importance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnnbench.slots import CompressionContext
    from cnnbench_plugins.compressor._channels import Ranking

Importance = Literal["l1", "l2", "taylor", "bn_scale", "random"]


def ranking(
    name: Importance, generator: torch.Generator, gates: Mapping[nn.Module, torch.Tensor] | None = None
) -> Ranking:
    """What ranks channels.

    Args:
        name: see ``PruneFilters``.
        generator: CPU generator, drawn from by ``random`` alone.
        gates: what ``taylor`` ranks by, see ``gate_gradients``.
    """
    from torch_pruning import importance

    if name == "taylor":
        return taylor_importance(gates or {})
    if name == "random":
        return lambda group: torch.rand(len(group[0].idxs), generator=generator)
    if name == "bn_scale":
        made = importance.BNScaleImportance()
    else:
        # Not divided by the group's mean, which changes no order and fails where all weights are zero.
        made = importance.GroupMagnitudeImportance(p=int(name[1]), normalizer=None)
    ranked: Ranking = made
    return ranked


@technique("compressor", "prune_filters", requires=(Requirement("torch_pruning", "compress"),))
class PruneFilters:
    """Removes whole channels from every layer, so that tensors become smaller, then fine-tunes.

    Li et al. 2017 (Pruning Filters for Efficient ConvNets, section 3) on the coupled groups of Fang et al. 2023
    (DepGraph): channels that must go together, as on the two sides of a residual sum, are ranked together. Of each
    group's n channels floor(n * (1 - ratio)) stay; a group that would lose all is left whole, and a group norm loses
    as many channels from each of its groups. Importance ``l1`` or ``l2`` is the mean over the group's layers of the
    norm of the weights that go with the channel, ``bn_scale`` the mean |gamma| (Liu et al. 2017), ``random`` the
    control, and ``taylor`` (Molchanov et al. 2017, equation 8, as derivatives by gates on the channels) the sum over
    the batches of one epoch of |dL/dz|, z = 1 being a factor on the channel where the next layers read it: to first
    order, what its removal does to the loss. The classifier's outputs stay. With ratio r inner convolutions keep about
    (1 - r)^2 of their weights and FLOPs. Default ratio: Li prunes up to half of a layer. Fine-tuning at a tenth of
    SGD's usual rate follows their retraining at a reduced constant rate; with ``epochs = 0`` batch-norm statistics
    alone are recomputed.

    Helps: parameters, FLOPs, memory and latency, without special kernels.
    Known not to help: narrow networks at high ratios; latency where channel counts become odd. A small network trained
    from scratch can do as well (Liu et al. 2019, Rethinking the Value of Network Pruning).

    Attributes:
        importance: what channels are ranked by.
        learning_rate: base rate of the fine-tuning, in place of the recipe's.
    """

    ratio: Annotated[float, Gt(0), Lt(1)] = 0.5
    importance: Importance = "l1"
    epochs: Annotated[int, Ge(0)] = 2
    learning_rate: Annotated[float, Gt(0)] = 0.01

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Prune in place; raises ``Unsupported`` or ``NoEffect``."""
        check_changeable(model)
        gates = gate_gradients(model, context) if self.importance == "taylor" else None
        remove_channels(model, context.example, self.ratio, ranking(self.importance, context.generator, gates))
        finetune(model, context, self.epochs, self.learning_rate)
        return model


TECHNIQUES = (PruneFilters,)
