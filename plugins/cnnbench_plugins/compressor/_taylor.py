"""First-order importance of channels for torch-pruning's coupled groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.lazy import nn, torch
from cnnbench_plugins.compressor._gradients import weight_times_gradient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cnnbench.slots import CompressionContext


def input_sums(product: torch.Tensor, groups: int) -> torch.Tensor:
    """Sum of w * dL/dw over the weights that read each input channel: the derivative by a gate on that channel.

    A layer is linear in its input, so with a factor z_c = 1 on input channel c, dL/dz_c is this sum.

    Args:
        product: w * dL/dw, [out, in/groups, ...].
        groups: of the convolution; 1 for a linear layer.

    Returns:
        [in].
    """
    outputs, inputs = product.shape[:2]
    return product.reshape(groups, outputs // groups, inputs, -1).sum((1, 3)).flatten()


def gate_gradients(model: nn.Module, context: CompressionContext) -> dict[nn.Module, torch.Tensor]:
    """For each conv and linear layer, dL/dz of gates on its input channels, [batches, in], over one epoch."""
    layers = dict(model.named_modules())
    found: dict[nn.Module, list[torch.Tensor]] = {}

    def add(name: str, product: torch.Tensor) -> None:
        layer = layers[name]
        found.setdefault(layer, []).append(input_sums(product, int(getattr(layer, "groups", 1))))

    weight_times_gradient(model, context, add)
    return {layer: torch.stack(rows) for layer, rows in found.items()}


def number_inputs(layers: Mapping[nn.Module, Any]) -> None:
    """Write each input channel's number into the weights' ``.grad``, which torch-pruning cuts along with the weight.

    Once other groups have been cut from a layer (concatenations), this still tells which channels are left.
    """
    for layer in layers:
        weight = layer.weight
        if isinstance(weight, torch.Tensor):
            numbers = torch.arange(weight.shape[1], dtype=weight.dtype, device=weight.device)
            weight.grad = numbers.view(1, -1, *[1] * (weight.dim() - 2)).expand_as(weight).clone()


def taylor_importance(gates: Mapping[nn.Module, torch.Tensor]) -> Callable[[Any], torch.Tensor | None]:
    """Sum over batches of |dL/dz| for a gate z on a channel wherever it is read, for torch-pruning.

    Args:
        gates: see ``gate_gradients``; the layers' inputs must be numbered.
    """
    from torch_pruning.pruner import function

    reading = (function.prune_conv_in_channels, function.prune_linear_in_channels)

    def importance(group: Any) -> torch.Tensor | None:
        total: torch.Tensor | None = None
        for item in group:
            layer = item.dep.layer
            if item.dep.pruning_fn not in reading or layer not in gates or None in item.root_idxs:
                continue
            gate = gates[layer]
            width = layer.weight.shape[1]
            kept = layer.weight.grad.flatten(2)[0, :, 0] if layer.weight.dim() > 2 else layer.weight.grad[0]
            block, place = torch.as_tensor(item.idxs) // width, torch.as_tensor(item.idxs) % width
            groups = int(getattr(layer, "groups", 1))
            number = block.to(kept.device) * (gate.shape[1] // groups) + kept.long()[place.to(kept.device)]
            if total is None:
                total = torch.zeros(len(gate), len(group[0].idxs), device=gate.device)
            total.index_add_(1, torch.as_tensor(item.root_idxs, device=gate.device), gate[:, number].to(total))
        return None if total is None else total.abs().sum(0)

    return importance
