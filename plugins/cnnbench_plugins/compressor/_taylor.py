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


def taylor_importance(gates: Mapping[nn.Module, torch.Tensor]) -> Callable[[Any], torch.Tensor | None]:
    """Sum over batches of |dL/dz| for a gate z on a channel wherever it is read, for torch-pruning.

    Args:
        gates: see ``gate_gradients``. torch-pruning ranks all channels before it cuts any, so their numbers hold.
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
            if total is None:
                total = torch.zeros(len(gate), len(group[0].idxs), device=gate.device)
            places, channels = (torch.as_tensor(index, device=gate.device) for index in (item.root_idxs, item.idxs))
            total.index_add_(1, places, gate[:, channels].to(total))
        return None if total is None else total.abs().sum(0)

    return importance
