"""What is measured: a model ready to be called, with the inputs that it is called on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

BATCHES = 8
"""Different batches that calls take in turn, so that no call finds its own inputs in the cache."""


@dataclass(frozen=True)
class Subject:
    """One of several models that are measured in turns.

    Attributes:
        call: maps model inputs [n, C, H, W] to logits [n, K].
        inputs: model inputs [N, C, H, W] to draw batches from, on the device.
    """

    call: Callable[[torch.Tensor], torch.Tensor]
    inputs: torch.Tensor


def make_batches(inputs: torch.Tensor, size: int, most: int = BATCHES) -> list[torch.Tensor]:
    """Up to ``most`` batches [size, C, H, W], contiguous, starting over where the inputs end."""
    count = max(1, min(most, len(inputs) // size))
    rows = torch.arange(count * size, device=inputs.device) % len(inputs)
    return [inputs[part].contiguous() for part in torch.split(rows, size)]
