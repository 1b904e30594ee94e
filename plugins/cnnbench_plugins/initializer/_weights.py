"""Which weights an initializer fills, and their fans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from cnnbench.errors import NoEffect
from cnnbench.lazy import nn, torch

if TYPE_CHECKING:
    from collections.abc import Callable


class Layer(NamedTuple):
    """Shape of one layer's weight, as far as initialization cares.

    Attributes:
        shape: of the weight: [out, in / groups, kernel...], for transposed convolutions [in, out / groups, kernel...].
        groups: 1 for a linear layer.
        fan_in: inputs that one output sums: in / groups * kernel positions.
        fan_out: outputs that one input feeds: out / groups * kernel positions.
    """

    shape: tuple[int, ...]
    groups: int
    fan_in: int
    fan_out: int


def fill(model: nn.Module, draw: Callable[[Layer], torch.Tensor]) -> None:
    """Set the weights of all linear and (transposed) convolution layers in place, and their biases to 0.

    Norm layers keep theirs, and so does everything else. Layers come in the model's order, each once.

    Args:
        model: on any device, in any precision.
        draw: for each layer, the new weight of its shape (CPU, float).

    Raises:
        NoEffect: the model has no such layer.
    """
    layers = weight_layers(model)
    if not layers:
        raise NoEffect("the model has no linear or convolution layer whose weights could be initialized")
    with torch.no_grad():
        for module in layers:
            _set(module, draw(_layer_of(module)))
            if module.bias is not None:
                module.bias.zero_()


def weight_layers(model: nn.Module) -> list[Any]:
    """All linear and (transposed) convolution layers, in the model's order, each once."""
    kinds = (
        *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
        *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    )
    return [module for module in model.modules() if isinstance(module, kinds)]


def scale_weight(layer: Any, factor: float) -> None:
    """Multiply a layer's weight in place."""
    with torch.no_grad():
        _set(layer, layer.weight * factor)


def _layer_of(module: Any) -> Layer:
    shape = tuple(module.weight.shape)
    if isinstance(module, nn.Linear):
        return Layer(shape, 1, shape[1], shape[0])
    positions = module.weight[0, 0].numel()
    fan_in = module.in_channels // module.groups * positions
    return Layer(shape, module.groups, fan_in, module.out_channels // module.groups * positions)


def _set(module: Any, weight: torch.Tensor) -> None:
    if torch.nn.utils.parametrize.is_parametrized(module, "weight"):
        # The weight is computed from others; assigning inverts that where it can be inverted.
        module.weight = weight.to(module.weight)
    else:
        cast("torch.Tensor", module.weight).copy_(weight)
