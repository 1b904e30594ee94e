"""An activation that takes its size from its first input."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter


class LazyChannelPReLU(LazyModuleMixin, nn.PReLU):
    """A PReLU with a slope for each channel; an ``nn.PReLU`` once it has seen how many.

    Args:
        init: the slope at first.
    """

    cls_to_become = nn.PReLU

    def __init__(self, init: float) -> None:
        super().__init__(1, init)
        self.weight = cast("nn.Parameter", UninitializedParameter())

    def initialize_parameters(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - torch's
        """Take the number of channels from [N, C, ...]."""
        self.num_parameters = x.shape[1]
        assert isinstance(self.weight, UninitializedParameter)
        self.weight.materialize((self.num_parameters,))
        nn.init.constant_(self.weight, self.init)
