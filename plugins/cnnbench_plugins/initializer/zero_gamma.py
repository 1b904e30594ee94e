"""Residual blocks that start as their shortcuts."""

from __future__ import annotations

from cnnbench.errors import NoEffect
from cnnbench.lazy import nn, torch
from cnnbench.technique import technique


@technique("initializer", "zero_gamma")
class ZeroGamma:
    """Sets the scale of each residual branch's last norm to 0, so that every block starts as its shortcut.

    Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section 5.1: gamma = 0 in the last batch norm of each block, so
    that x + branch(x) = x at first (the norm's shift is set to 0 too, as a fresh one's is). All other weights stay as
    the model's own code made them. The norm is found by tracing the additions of any model; a branch that ends in a
    convolution, as in pre-activation networks, has none and stays.

    Helps: residual networks at large batches and learning rates, whose first epochs are unstable.
    Known not to help: short runs, which spend their first steps on opening the branches: at the start only the norm's
    own scale and shift receive a gradient in a branch.
    """

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:  # noqa: ARG002 - nothing to draw
        """Set the norms' weights in place.

        Raises:
            NoEffect: no residual branch of the model ends in a norm with a scale.
        """
        from cnnbench_plugins._residual import find_residuals

        norms = [model.get_submodule(found.norm) for found in find_residuals(model) if found.norm is not None]
        scaled = [norm for norm in norms if isinstance(norm.weight, torch.Tensor)]
        if not scaled:
            raise NoEffect("zero_gamma found no residual branch in the model that ends in a norm with a learned scale")
        with torch.no_grad():
            for norm in scaled:
                for values in (norm.weight, norm.bias):
                    if isinstance(values, torch.Tensor):
                        values.zero_()


TECHNIQUES = (ZeroGamma,)
