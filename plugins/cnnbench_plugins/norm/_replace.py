"""What all norms need from the module that they replace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from cnnbench.errors import Unsupported

if TYPE_CHECKING:
    from cnnbench.lazy import nn


def channels_of(norm: nn.Module) -> int:
    """Number of channels that a norm of [N, C, H, W] was made for.

    Raises:
        Unsupported: it does not say.
    """
    known = cast("Any", norm)
    for attribute in ("num_features", "num_channels"):
        if hasattr(norm, attribute):
            return int(getattr(known, attribute))
    if hasattr(norm, "normalized_shape"):
        return int(known.normalized_shape[0])
    if hasattr(norm, "weight"):  # torchvision's FrozenBatchNorm2d keeps nothing else
        return int(known.weight.shape[0])
    raise Unsupported(f"{type(norm).__name__} does not say how many channels it has")


def inherit(new: nn.Module, old: nn.Module) -> nn.Module:
    """Copy scale, bias and running statistics from ``old`` where ``new`` has the same, and return ``new``.

    So a model keeps what it set on purpose, such as a scale of 0 on the last norm of each residual block.
    """
    state = new.state_dict()
    kept = {k: v.clone() for k, v in old.state_dict().items() if k in state and v.shape == state[k].shape}
    new.load_state_dict(state | kept, assign=True)  # assigned, not copied: float64 stays exact
    return new
