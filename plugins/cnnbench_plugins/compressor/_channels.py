"""Removes whole channels, with what is coupled to them, by torch-pruning's dependency graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cnnbench.errors import NoEffect, Unsupported
from cnnbench.lazy import nn, torch

if TYPE_CHECKING:
    from cnnbench_plugins.compressor._sparsity import Scope

Ranking = Callable[[Any], "torch.Tensor | None"]


def remove_channels(
    model: nn.Module,
    example: torch.Tensor,
    ratio: float,
    rank: Ranking,
    scope: Scope = "layer",
) -> None:
    """Remove a share of the groups' coupled channels, in place; inputs and outputs keep their shapes.

    Args:
        model: on the example's device.
        example: one model input [1, C, H, W].
        ratio: of n channels floor(n * (1 - ratio)) stay; a group that would lose all keeps all.
        rank: from a group of torch-pruning's to the importance of each of its channels; the lowest go. It may look at
            the parameters' ``grad``, which is gone afterwards. None leaves a group as it is.
        scope: n are the channels of each group, or those of all groups together, ranked as one.

    Raises:
        Unsupported: the model's structure can't be followed, or it no longer runs once pruned.
        NoEffect: no channel was removed.
    """
    import torch_pruning

    model.eval()
    before = sum(parameter.numel() for parameter in model.parameters())
    output, last = _output_layer(model, example)
    requires_grad = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about parameters outside layers, which stay as they are
            for parameter in model.parameters():  # the dependency graph is read off autograd's
                parameter.requires_grad_(True)
            pruner = torch_pruning.pruner.BasePruner(
                model, example, rank, scope == "global", pruning_ratio=ratio, ignored_layers=[last]
            )
            pruner.step()
        with torch.no_grad():
            pruned = model(example)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise _unsupported(model, reason) from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(requires_grad[name])
        parameter.grad = None
    if pruned.shape != output.shape:
        raise _unsupported(model, f"output {tuple(pruned.shape)}, expected {tuple(output.shape)}")
    if sum(parameter.numel() for parameter in model.parameters()) == before:
        reason = "no layer would keep a channel, or none has what the importance ranks by (bn_scale: a batch norm)"
        raise NoEffect(f"removed no channel at ratio {ratio}: {reason}")


def _unsupported(model: nn.Module, reason: str) -> Unsupported:
    return Unsupported(
        f"torch-pruning can't follow the channels of {type(model).__name__} (shuffles, zero-padded shortcuts and the "
        f"like are beyond it): {reason}"
    )


def _output_layer(model: nn.Module, example: torch.Tensor) -> tuple[torch.Tensor, nn.Module]:
    """Output for the example, and the convolution or linear layer that ran last: its channels are the classes."""
    ran: list[nn.Module] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
        ran.append(module)

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            output = model(example)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise NoEffect("removed no channel: the model has no convolution or linear layer")
    return output, ran[-1]
