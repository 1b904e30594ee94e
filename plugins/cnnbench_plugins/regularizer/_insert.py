"""Puts layers that drop parts of feature maps behind a model's activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from cnnbench.surgery import TARGETS, apply_surgery, graphs_of
from cnnbench.tracing import joined

if TYPE_CHECKING:
    from torch import fx


def insert_behind_activations(technique: Any, model: nn.Module) -> int:
    """Let ``technique`` make an activation and a layer behind it of each activation, in place; returns their number.

    Features that come from a linear layer have their channels last (ConvNeXt: [N, H, W, C]), and a tensor doesn't tell:
    the layer's attribute ``channels_last`` does.

    Raises:
        NoEffect: the model has no activation module.
    """
    behind_linear = _behind_linear(model)
    inserted = apply_surgery("activation", technique, model).swapped
    for module in list(model.modules()):
        if isinstance(module, nn.Sequential) and len(module) == 2 and module[0] in behind_linear:
            layer: Any = module[1]
            layer.channels_last = True
    return inserted


def _behind_linear(model: nn.Module) -> set[nn.Module]:
    found: set[nn.Module] = set()
    for path, graph in graphs_of(model, TARGETS["activation"]):
        for node in graph.nodes:
            module = _module(model, path, node)
            if isinstance(module, TARGETS["activation"]) and _is_linear(model, path, node):
                found.add(module)
    return found


def _is_linear(model: nn.Module, path: str, node: fx.Node) -> bool:
    """Whether the nearest layer with weights before ``node`` is linear, with nothing but modules in between."""
    while node.all_input_nodes:
        node = node.all_input_nodes[0]
        module = _module(model, path, node)
        if module is None or isinstance(module, nn.Linear | nn.Conv2d):
            return isinstance(module, nn.Linear)
    return False


def _module(model: nn.Module, path: str, node: fx.Node) -> nn.Module | None:
    return model.get_submodule(joined(path, str(node.target))) if node.op == "call_module" else None
