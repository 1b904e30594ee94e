"""Finds the residual additions of any model, by symbolic tracing.

An addition is residual where its two operands come from one value, the fork, and one of them, the shortcut, passes at
most one convolution or linear layer on its way (none, or a projection) and fewer than the other, the branch. Ways are
counted by the fewest such layers, so that gates beside a way (squeeze-and-excitation) don't count. Sums of a value and
a parameter (layer scale, position embeddings) and of branches of equal length are none.
"""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from cnnbench.tracing import called, joined, traced_graphs

if TYPE_CHECKING:
    from torch import fx

LAYERS = (nn.modules.conv._ConvNd, nn.Linear)  # noqa: SLF001 - the base of all convolutions has no public name
_ADDITIONS = frozenset({"add", "iadd", "add_"})
_PRODUCTS = frozenset({"mul", "imul", "mul_", "multiply", "div", "truediv", "neg"})
# What leaves zeros zero and, apart from their order, values where they are: a branch can be switched off before these.
_KEEP_ZERO = frozenset({"relu", "relu_", "relu6", "hardswish", "silu", "gelu", "mish", "tanh", "leaky_relu", "elu"})
_RESHAPES = frozenset({"permute", "transpose", "view", "reshape", "contiguous", "flatten", "squeeze", "unsqueeze"})
_ZERO_KEEPERS = (
    *(nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Tanh, nn.Hardtanh, nn.MaxPool2d, nn.AvgPool2d),
)


@dataclass(frozen=True)
class Residual:
    """One residual addition.

    Attributes:
        addition: path of the module whose ``forward`` adds; empty for the model itself.
        end: path of the module whose output ends the branch, apart from what drops it at random, scales it or leaves
            zeros zero. A layer wrapped around this module acts on the branch and not on the shortcut.
        norm: path of the norm whose output is the branch's, apart from the same and from activations, so that the
            branch is 0 where the norm's scale and shift are; None where a convolution or linear layer comes last.
        layer: path of the branch's last convolution or linear layer, None where it is out of sight.
    """

    addition: str
    end: str
    norm: str | None
    layer: str | None


def find_residuals(model: nn.Module) -> list[Residual]:
    """Every residual addition, in the order in which a traced model reaches them.

    A model that can't be traced contributes those of its largest parts that can. Left out are additions whose branch
    ends in no module, and modules that end a branch in one call and do something else in another.

    Args:
        model: any model, on any device; it isn't run, and torch's generators stay as they were.
    """
    found: dict[nn.Module, Residual] = {}
    for path, graph in traced_graphs(model, is_node):
        modules = dict(model.get_submodule(path).named_modules(remove_duplicate=False))
        calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
        residuals = [r for node in graph.nodes if (r := _residual(node, modules)) is not None]
        ends = Counter(residual.end for residual in residuals)
        for residual in residuals:
            if calls[residual.end] <= ends[residual.end]:
                found.setdefault(modules[residual.end], _below(path, residual))
    return list(found.values())


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalizes, going by its class's name, which torch, torchvision and timm keep to.

    What holds layers with weights of their own (Conv2dNormActivation) does not.
    """
    return "norm" in type(module).__name__.lower() and not any(list(c.parameters()) for c in module.children())


def is_node(module: nn.Module) -> bool:
    """Whether a module is one node of the graphs here, whoever wrote it: layers, norms, what has no submodules.

    A module of two inputs may be the addition itself, and is looked into.
    """
    if isinstance(module, LAYERS) or is_norm(module):
        return True
    inputs = [p for p in inspect.signature(module.forward).parameters.values() if p.default is p.empty]
    return len(inputs) == 1 and next(module.children(), None) is None


def _residual(node: fx.Node, modules: dict[str, nn.Module]) -> Residual | None:
    """What ``node`` adds, if it is a residual addition whose branch ends in a module."""
    if called(node) not in _ADDITIONS or len(operands := node.all_input_nodes) != 2:
        return None
    # In order of calls, the last value that both come from: the fork.
    common = _ancestors(operands[0]) & _ancestors(operands[1])
    common = {n for n in common if n.op != "get_attr"}
    if not common:
        return None
    fork = max(common)
    lengths = {operand: _length(fork, operand, modules) for operand in operands}
    shortcut, branch = sorted(operands, key=lengths.__getitem__)
    if lengths[shortcut] > 1 or lengths[shortcut] == lengths[branch]:
        return None
    end = _end(branch, node, modules)
    if end is None:
        return None
    return Residual(_stack(node)[-1], end, _norm(branch, fork, modules), _layer(branch, fork, modules))


def _ancestors(node: fx.Node) -> set[fx.Node]:
    """All that a value is computed from, itself included."""
    seen: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        if (current := waiting.pop()) not in seen:
            seen.add(current)
            waiting += current.all_input_nodes
    return seen


def _length(fork: fx.Node, target: fx.Node, modules: dict[str, nn.Module]) -> int:
    """Fewest convolutions and linear layers on a way from ``fork`` to ``target``."""
    lengths = {fork: 0}
    for node in sorted(_ancestors(target)):
        ways = [lengths[source] for source in node.all_input_nodes if source in lengths]
        if node != fork and ways:
            lengths[node] = min(ways) + (isinstance(_module(node, modules), LAYERS) or called(node) in _FUNCTIONS)
    return lengths[target]


_FUNCTIONS = frozenset({"conv1d", "conv2d", "conv3d", "linear"})


def _end(node: fx.Node, addition: fx.Node, modules: dict[str, nn.Module]) -> str | None:
    """Path of the module whose output ``node`` is, apart from noise, scaling and what leaves zeros zero."""
    outside = set(_stack(addition))
    while True:
        module = _module(node, modules)
        if module is not None and not _is_noise(type(module).__name__):
            return str(node.target)
        inner = [path for path in _stack(node) if path not in outside]
        if module is None and inner:
            return inner[-1]  # computed inside it and used outside: its output
        source = _source(node) if module is not None or _passes(node) else None
        if source is None:
            return None
        node = source


def _norm(node: fx.Node, fork: fx.Node, modules: dict[str, nn.Module]) -> str | None:
    while node != fork:
        module = _module(node, modules)
        if module is not None and is_norm(module):
            return str(node.target)
        keeps = isinstance(module, _ZERO_KEEPERS) or _is_noise(type(module).__name__)
        source = _source(node) if keeps or _passes(node) else None
        if source is None:
            return None
        node = source
    return None


def _layer(node: fx.Node, fork: fx.Node, modules: dict[str, nn.Module]) -> str | None:
    while node != fork:
        if isinstance(_module(node, modules), LAYERS):
            return str(node.target)
        source = _source(node)
        if source is None:
            return None
        node = source
    return None


def _source(node: fx.Node) -> fx.Node | None:
    """The features that a node works on: of several inputs the earliest, since gates are computed from features."""
    return min((n for n in node.all_input_nodes if n.op != "get_attr"), default=None)


def _passes(node: fx.Node) -> bool:
    name = called(node)
    return name in _PRODUCTS or name in _KEEP_ZERO or name in _RESHAPES or _is_noise(name)


def _is_noise(name: str) -> bool:
    return "drop" in name.lower() or name.lower().replace("_", "") == "stochasticdepth"


def _module(node: fx.Node, modules: dict[str, nn.Module]) -> nn.Module | None:
    return modules[str(node.target)] if node.op == "call_module" else None


def _stack(node: fx.Node) -> list[str]:
    """Paths of the modules that a call is made in, outermost first, the traced module itself as the empty path."""
    return ["", *(str(path) for path, _ in node.meta.get("nn_module_stack", {}).values())]


def _below(path: str, residual: Residual) -> Residual:
    return Residual(
        joined(path, residual.addition),
        joined(path, residual.end),
        None if residual.norm is None else joined(path, residual.norm),
        None if residual.layer is None else joined(path, residual.layer),
    )
