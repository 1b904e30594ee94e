"""One scale for a whole weight, in the form that the per-channel kernels take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchao.quantization.pt2e.observer import PerChannelMinMaxObserver

if TYPE_CHECKING:
    import torch


class SharedScaleObserver(PerChannelMinMaxObserver):  # type: ignore[misc] # torchao ships no types
    """Gives every channel the scale of the widest one, which is per-tensor quantization."""

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scales and zero points, one a channel, all equal."""
        scale, zero_point = super().calculate_qparams()
        return scale.max().expand_as(scale).clone(), zero_point
