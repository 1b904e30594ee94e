"""What all norms need from the module that they replace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from cnnbench.errors import Unsupported

if TYPE_CHECKING:
    from cnnbench.lazy import nn


def channels_of(norm: nn.Module) -> int:
    """Number of channels that a norm of [N, C, H, W] was made for.

    Raises:
        Unsupported: it does not say, or is lazy and does not know yet.
    """
    known = cast("Any", norm)
    for attribute in ("num_features", "num_channels"):
        if hasattr(norm, attribute):
            channels = int(getattr(known, attribute))
            break
    else:
        if hasattr(norm, "normalized_shape"):
            channels = int(known.normalized_shape[0])
        elif hasattr(norm, "weight"):  # torchvision's FrozenBatchNorm2d keeps nothing else
            channels = int(known.weight.shape[0])
        else:
            channels = 0
    if channels < 1:
        raise Unsupported(f"{type(norm).__name__} does not say how many channels it has")
    return channels


def inherit(new: nn.Module, old: nn.Module) -> nn.Module:
    """Copy scale, bias and running statistics from ``old`` where ``new`` has the same, and return ``new``.

    So a model keeps what it set on purpose, such as a scale of 0 on the last norm of each residual block.
    """
    state = new.state_dict()
    kept = {k: v for k, v in old.state_dict().items() if k in state and v.shape == state[k].shape}
    new.load_state_dict(state | kept)
    return new
