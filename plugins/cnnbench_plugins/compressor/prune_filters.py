"""Structured pruning: whole channels are removed, and tensors really become smaller."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from cnnbench import Requirement, technique
from cnnbench.errors import NoEffect, Unsupported
from cnnbench.lazy import nn, torch
from cnnbench_plugins.compressor._changeable import check_changeable
from cnnbench_plugins.compressor._finetune import finetune
from cnnbench_plugins.compressor._taylor import gate_gradients, taylor_importance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cnnbench.slots import CompressionContext

Importance = Literal["l1", "l2", "taylor", "bn_scale", "random"]


def remove_channels(
    model: nn.Module,
    example: torch.Tensor,
    ratio: float,
    importance: Importance,
    generator: torch.Generator,
    gates: Mapping[nn.Module, torch.Tensor] | None = None,
) -> None:
    """Remove a share of each group of coupled channels, in place; inputs and outputs keep their shapes.

    Args:
        model: on the example's device.
        example: one model input [1, C, H, W].
        ratio: of a group's n channels floor(n * (1 - ratio)) stay; where that is 0, all of them.
        importance: how channels are ranked; the lowest go.
        generator: CPU generator, drawn from by ``random`` alone.
        gates: what ``taylor`` ranks by, see ``gate_gradients``.

    Raises:
        Unsupported: the model's structure can't be followed, or it no longer runs once pruned.
        NoEffect: no channel was removed.
    """
    import torch_pruning

    model.eval()
    before = sum(parameter.numel() for parameter in model.parameters())
    output, last = _output_layer(model, example)
    requires_grad = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about parameters outside layers, which stay as they are
            for parameter in model.parameters():  # the dependency graph is read off autograd's
                parameter.requires_grad_(True)
            ranked = _importance(importance, generator, gates or {})
            pruner = torch_pruning.pruner.BasePruner(model, example, ranked, pruning_ratio=ratio, ignored_layers=[last])
            pruner.step()
        with torch.no_grad():
            pruned = model(example)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise _unsupported(model, reason) from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(requires_grad[name])
        parameter.grad = None
    if pruned.shape != output.shape:
        raise _unsupported(model, f"output {tuple(pruned.shape)}, expected {tuple(output.shape)}")
    if sum(parameter.numel() for parameter in model.parameters()) == before:
        reason = "no layer would keep a channel"
        if importance == "bn_scale":
            reason += ", or none has a batch norm to rank it by"
        raise NoEffect(f"removed no channel at ratio {ratio}: {reason}")


def _unsupported(model: nn.Module, reason: str) -> Unsupported:
    return Unsupported(
        f"torch-pruning can't follow the channels of {type(model).__name__} (shuffles, zero-padded shortcuts and the "
        f"like are beyond it): {reason}"
    )


def _output_layer(model: nn.Module, example: torch.Tensor) -> tuple[torch.Tensor, nn.Module]:
    """Output for the example, and the convolution or linear layer that ran last: its channels are the classes."""
    ran: list[nn.Module] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
        ran.append(module)

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            output = model(example)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise NoEffect("removed no channel: the model has no convolution or linear layer")
    return output, ran[-1]


def _importance(
    name: Importance, generator: torch.Generator, gates: Mapping[nn.Module, torch.Tensor]
) -> Callable[[Any], torch.Tensor | None]:
    from torch_pruning import importance

    if name == "taylor":
        return taylor_importance(gates)
    if name == "random":
        return lambda group: torch.rand(len(group[0].idxs), generator=generator)
    if name == "bn_scale":
        made = importance.BNScaleImportance()
    else:
        # Not divided by the group's mean, which changes no order and fails where all weights are zero.
        made = importance.GroupMagnitudeImportance(p=int(name[1]), normalizer=None)
    ranked: Callable[[Any], torch.Tensor | None] = made
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
    """

    ratio: Annotated[float, Gt(0), Lt(1)] = 0.5
    importance: Importance = "l1"
    epochs: Annotated[int, Ge(0)] = 2
    learning_rate: Annotated[float, Gt(0)] = 0.01

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Prune in place; raises ``Unsupported`` or ``NoEffect``."""
        check_changeable(model)
        gates = gate_gradients(model, context) if self.importance == "taylor" else None
        remove_channels(model, context.example, self.ratio, self.importance, context.generator, gates)
        finetune(model, context, self.epochs, self.learning_rate)
        return model


TECHNIQUES = (PruneFilters,)
