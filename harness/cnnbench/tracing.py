"""Symbolic traces of any model, or of those of its parts that can be traced."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Tracer(fx.Tracer):
    """Stops at the modules that it is told to take as one node, beside torch's own."""

    def __init__(self, whole: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self._whole = whole

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return self._whole(m) or super().is_leaf_module(m, module_qualified_name)


def traced_graphs(
    module: nn.Module, whole: Callable[[nn.Module], bool], path: str = ""
) -> Iterator[tuple[str, fx.Graph]]:
    """The traced graph of a model, or those of its largest parts that can be traced, each with its path.

    The model isn't run, and torch's generators stay as they were.

    Args:
        module: any model.
        whole: says which modules are one node of the graph, wherever they come from.
        path: put in front of the paths.
    """
    tracer = _Tracer(whole)
    try:
        # A forward pass may draw from the global generator, which belongs to the weights' initialization.
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            graph = tracer.trace(module)
    except Exception:  # noqa: BLE001 - models fail to trace with any error there is; their parts may still do
        for name, child in module.named_children():
            if not tracer.is_leaf_module(child, name):
                yield from traced_graphs(child, whole, joined(path, name))
    else:
        yield path, graph


def called(node: fx.Node) -> str:
    """Name of the function or method that a node calls; empty for a node that calls none."""
    if node.op not in ("call_function", "call_method"):
        return ""
    return node.target if isinstance(node.target, str) else str(getattr(node.target, "__name__", ""))


def joined(path: str, name: str) -> str:
    """A module's path within a model from that of its part and its path within that."""
    return f"{path}.{name}".strip(".")
