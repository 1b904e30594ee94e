"""Where squeeze-and-excitation goes in any model, and putting it there."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from cnnbench.errors import Unsupported
from cnnbench.surgery import TARGETS, replace_modules
from cnnbench.tracing import joined, traced_graphs
from cnnbench_plugins._residual import LAYERS, find_residuals, is_node, is_norm
from cnnbench_plugins.architecture._layers import SqueezeExcite

if TYPE_CHECKING:
    from collections.abc import Callable


def insert_squeeze_excite(
    model: nn.Module, image_shape: tuple[int, int, int], hidden: Callable[[int], int], *, bias: bool
) -> int:
    """Put squeeze-and-excitation behind the ends of residual branches or, where there are none, of units, in place.

    Args:
        model: any model.
        image_shape: (C, H, W) of its images, for one dry run.
        hidden: units between the two layers, from the number of channels.
        bias: give both layers biases.

    Returns:
        Number of layers put in.

    Raises:
        Unsupported: no place was found, or the dry run failed.
    """
    residuals = find_residuals(model)
    ends = {r.end: r.layer for r in residuals} if residuals else _units(model)
    channels = _channels(model, image_shape, ends)
    if not channels:
        places = "residual additions join no" if residuals else "there are no"
        raise Unsupported(f"found no place for squeeze-and-excitation: {places} feature maps [N, C, H, W]")

    def make(old: nn.Module) -> nn.Module:
        count = channels[old]
        gate = SqueezeExcite(count, hidden(count), bias=bias)
        return nn.Sequential(OrderedDict(features=old, squeeze_excite=gate))

    return replace_modules(model, lambda module: module in channels, make)


def _units(model: nn.Module) -> dict[str, str | None]:
    """Last module of each unit of convolution, norm and activation, with the convolution; not the classifier's.

    A depthwise convolution is part of the unit of the pointwise one behind it.
    """
    layers = [name for name, module in model.named_modules() if isinstance(module, LAYERS)]
    found: dict[str, str | None] = {}
    for path, graph in traced_graphs(model, is_node):
        modules = dict(model.get_submodule(path).named_modules(remove_duplicate=False))
        calls = [node.target for node in graph.nodes if node.op == "call_module"]
        for node in graph.nodes:
            conv = modules.get(str(node.target)) if node.op == "call_module" else None
            if (
                isinstance(conv, nn.Conv2d)
                and not 1 < conv.groups == conv.in_channels
                and calls.count(node.target) == 1
                and joined(path, str(node.target)) != layers[-1]
            ):
                found[joined(path, _end_of_unit(node, modules, calls))] = joined(path, str(node.target))
    return found


def _end_of_unit(conv: fx.Node, modules: dict[str, nn.Module], calls: list[Any]) -> str:
    """The norm or activation behind a convolution that ends its unit, or the convolution itself.

    One that is called in several places can't be the end, since what is put behind it would act in all of them.
    """
    end = conv
    for kind in (is_norm, lambda module: isinstance(module, TARGETS["activation"])):
        users = list(end.users)
        if (
            len(users) == 1
            and users[0].op == "call_module"
            and calls.count(users[0].target) == 1
            and kind(modules[str(users[0].target)])
        ):
            end = users[0]
    return str(end.target)


def _channels(model: nn.Module, image_shape: tuple[int, int, int], ends: dict[str, str | None]) -> dict[nn.Module, int]:
    """Channels of what each end puts out, found by a dry run; only those that put out feature maps [N, C, H, W].

    Channels-last features have as many axes; the last layer's output channels tell which axis is theirs.
    """
    channels: dict[nn.Module, int] = {}

    def note(expected: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[1] == expected:
                channels[module] = expected

        return hook

    handles = []
    for end, layer in ends.items():
        module, last = model.get_submodule(end), None if layer is None else model.get_submodule(layer)
        expected = getattr(last, "out_channels", None) or getattr(last, "out_features", None)
        if expected is not None and not isinstance(module, nn.Linear):
            handles.append(module.register_forward_hook(note(expected)))
    training = model.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model.eval()(torch.zeros(1, *image_shape))
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise Unsupported(f"squeeze_excite could not run the model once to see its feature maps: {reason}") from error
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return channels
