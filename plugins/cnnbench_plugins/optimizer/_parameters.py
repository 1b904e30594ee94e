"""What optimizers have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnnbench.lazy import nn


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The model's parameters that are not frozen."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def can_fuse(parameters: list[nn.Parameter]) -> bool:
    """Whether PyTorch's fused step serves these: one kernel instead of several for each parameter."""
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
