"""PyTorch as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.lazy import nn, torch
from cnnbench.technique import technique

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnbench.slots import ServingContext


@technique("runtime", "eager")
class Eager:
    """Call the model as it is, in PyTorch's inference mode.

    One kernel launch after another, nothing fused or compiled: what ``model(x)`` costs. Helps as the arm to compare
    compiled runtimes with. Known to be bound by Python's overhead on small models and batches.
    """

    def __call__(self, model: nn.Module, context: ServingContext) -> Callable[[torch.Tensor], torch.Tensor]:  # noqa: ARG002 - the slot's signature
        """A function from model inputs [N, C, H, W] to logits [N, K]; sets eval mode."""
        model.eval()

        def call(inputs: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode():
                logits: torch.Tensor = model(inputs)
                return logits

        return call


TECHNIQUES = (Eager,)
