"""One use of a technique, as the harness would use it, on something tiny."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from cnnbench.lazy import torch


@dataclass(frozen=True)
class Situation:
    """What a technique meets.

    Attributes:
        channels, height, width: of the images.
        batch: how many of them.
        classes: how many classes there are.
        layers: for slots that act on a network: which tiny one; empty for the first that has what they act on.
    """

    channels: int = 3
    height: int = 16
    width: int = 16
    batch: int = 6
    classes: int = 4
    layers: str = ""

    def __str__(self) -> str:
        kind = {1: "gray", 3: "colour"}.get(self.channels, f"{self.channels}-channel")
        network = f", network {self.layers!r}" if self.layers else ""
        return f"{self.batch} {kind} image{'s' * (self.batch != 1)} of {self.height} x {self.width}{network}"


PLAIN = Situation()
GRAY = Situation(channels=1)
ODD = Situation(height=19, width=15)
ONE = Situation(batch=1)
EMPTY = Situation(batch=0)


@dataclass(frozen=True)
class Use:
    """What came of one use.

    Attributes:
        given: all that the technique was handed and must leave as it was, by name, as it is afterwards.
        before: the same as it was before, copied.
        result: what came out: tensors, modules, plain values, in mappings and sequences.
        module: the network or layer that came of it, in eval mode, where there is one.
        example: an input [N, C, H, W] for it.
        plain: the same without the technique, where that means something: what a no-op would give.
        generator: the one that it drew from, where it was handed one.
    """

    given: dict[str, Any]
    before: dict[str, Any]
    result: Any
    module: nn.Module | None = None
    example: torch.Tensor | None = None
    plain: Any = None
    generator: torch.Generator | None = None
