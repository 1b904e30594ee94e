"""Weights dropped at random during training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, cast

from annotated_types import Gt, Lt

from cnnbench.lazy import nn
from cnnbench.technique import technique

if TYPE_CHECKING:
    from cnnbench.lazy import torch


@technique("regularizer", "dropconnect")
class DropConnect:
    """Zero weights of linear layers at random during training.

    y = (M ∘ W) x / (1 - p) with M from Bernoulli(1 - p) for every weight, not for every unit as in ``dropout``, and for
    the biases too (Wan et al. 2013, section 3; their p of 0.5 is the default). ``masks = "sample"`` draws for each
    image on its own, as the paper does, at the memory of batch size x weights; ``batch`` draws once a step. Scaled in
    training, so that inference uses the mean weights; the paper draws each unit's input from the matching normal
    distribution there. In linear layers alone, as in the paper, and in the output layer too, which the paper leaves
    out: many networks have no other. The projections within attention stay as they are.

    Helps large fully connected layers on small data. Known not to beat dropout by much, and to hide little where the
    linear layers hold few of the weights.
    """

    p: Annotated[float, Gt(0), Lt(1)] = 0.5
    masks: Literal["sample", "batch"] = "sample"

    def prepare(self, model: nn.Module, generator: torch.Generator) -> int:  # noqa: ARG002 - the slot's signature
        """Replace the layers in place, their parameters kept, and return their number."""
        from cnnbench.surgery import replace_modules
        from cnnbench_plugins.regularizer._layers import DropConnectLinear

        # A subclass may be used in another way than by a call, as attention does with its projection.
        return replace_modules(
            model,
            lambda m: type(m) is nn.Linear,
            lambda m: DropConnectLinear.of(cast("nn.Linear", m), self.p, each=self.masks == "sample"),
        )


TECHNIQUES = (DropConnect,)
