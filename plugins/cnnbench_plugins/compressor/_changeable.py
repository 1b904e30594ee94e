"""Whether a network's weights can be changed at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.errors import Unsupported
from cnnbench.lazy import torch

if TYPE_CHECKING:
    from cnnbench.lazy import nn


def check_changeable(model: nn.Module) -> None:
    """Raise ``Unsupported`` for a network that was quantized to an int8 graph, which has no layers any more."""
    if any(parameter.dtype == torch.int8 for parameter in model.parameters()):
        raise Unsupported("the model is an int8 graph, whose weights can't be changed any more: put quantization last")
