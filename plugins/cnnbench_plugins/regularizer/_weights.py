"""Which parameters a regularizer of weights acts on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.errors import NoEffect
from cnnbench.lazy import nn

if TYPE_CHECKING:
    from cnnbench.lazy import torch


def regularized(model: nn.Module, *, norms_and_biases: bool) -> list[nn.Parameter]:
    """The weights of linear and convolution layers; or every parameter, with those of norms and all biases.

    Told by layer, not by the number of dimensions: a layer norm over [C, H, W] has three, a learned slope or
    scale may have four. Frozen parameters are left out, shared ones come once.

    Raises:
        NoEffect: there is none.
    """
    found = model.parameters() if norms_and_biases else (layer.weight for layer in _layers(model))
    trainable = [p for p in dict.fromkeys(found) if p.requires_grad]
    if not trainable:
        raise NoEffect("the model has no trainable weight to regularize")
    return trainable


def filters(model: nn.Module) -> list[torch.Tensor]:
    """The trainable weights of linear and convolution layers as matrices with one row for each filter.

    Returns:
        For each weight a tensor [groups, out / groups, in / groups x kernel positions], differentiable.

    Raises:
        NoEffect: there is none.
    """
    layers = {layer.weight: layer for layer in _layers(model) if layer.weight.requires_grad}
    if not layers:
        raise NoEffect("the model has no trainable weight to regularize")
    return [_rows(layer) for layer in layers.values()]


def _layers(model: nn.Module) -> list[Any]:
    """Linear and convolution layers whose weight is a parameter, not computed from others."""
    kinds = (
        *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
        *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    )
    return [m for m in model.modules() if isinstance(m, kinds) and isinstance(m.weight, nn.Parameter)]


def _rows(layer: Any) -> torch.Tensor:
    blocks: torch.Tensor = layer.weight.unflatten(0, (getattr(layer, "groups", 1), -1))
    # A transposed convolution's weight has the inputs first.
    return (blocks.transpose(1, 2) if getattr(layer, "transposed", False) else blocks).flatten(2)
