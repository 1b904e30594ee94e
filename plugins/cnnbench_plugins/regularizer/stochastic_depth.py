"""Residual branches dropped at random during training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Gt, Lt

from cnnbench.errors import NoEffect
from cnnbench.lazy import nn
from cnnbench.technique import technique

if TYPE_CHECKING:
    from cnnbench.lazy import torch


@technique("regularizer", "stochastic_depth")
class StochasticDepth:
    """Drop residual branches at random during training, so that a block is its shortcut alone.

    y = shortcut(x) + b branch(x) / (1 - p_l) with b from Bernoulli(1 - p_l) and p_l = p l / L for branch l = 1 .. L
    (Huang et al. 2016, section 3, linear decay; p is theirs for the last block). Scaled in training, so that inference
    is left alone; the paper scales at inference instead. ``mode``: ``row`` draws for each sample, ``batch`` once a
    step as the paper does. On any model whose residual additions can be traced; a drop that the model has of its own
    (efficientnet, convnext) stays, and the two compound. The paper's p is for 54 blocks; for three, 0.1 to 0.2 is
    enough.

    Helps deep residual networks at long budgets. Known to hurt shallow ones, where a block is a large share of what the
    network can do.
    """

    p: Annotated[float, Gt(0), Lt(1)] = 0.5
    mode: Literal["row", "batch"] = "row"

    def prepare(self, model: nn.Module, generator: torch.Generator) -> int:  # noqa: ARG002 - the slot's signature
        """Insert a layer at the end of each branch in place and return their number.

        Raises:
            NoEffect: the model has no residual branch that can be traced.
        """
        from torchvision.ops import StochasticDepth as Drop

        from cnnbench_plugins._residual import find_residuals

        ends = [model.get_submodule(residual.end) for residual in find_residuals(model)]
        if not ends:
            raise NoEffect("stochastic_depth found no residual addition in the model that ends in a module of its own")
        for index, end in enumerate(ends):
            _append(model, end, Drop(self.p * (index + 1) / len(ends), self.mode))
        return len(ends)


def _append(model: nn.Module, module: nn.Module, layer: nn.Module) -> None:
    """Put a layer behind a module of the model; one at a time, since a branch may hold blocks with branches."""
    from cnnbench.surgery import replace_modules

    replace_modules(model, lambda m: m is module, lambda m: nn.Sequential(m, layer))


TECHNIQUES = (StochasticDepth,)
