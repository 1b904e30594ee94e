"""Finds the residual additions of any model, by symbolic tracing.

An addition is residual where its two operands come from one value, the fork, and one of them, the shortcut, passes at
most one convolution or linear layer on its way (none, or a projection) and fewer than the other, the branch. Ways are
counted by the fewest such layers, so that gates beside a way (squeeze-and-excitation) don't count. Sums of a value and
a parameter (layer scale, position embeddings) and of branches of equal length are none.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    for path, graph in traced_graphs(model):
        modules = dict(model.get_submodule(path).named_modules(remove_duplicate=False))
        calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
        residuals = [r for node in graph.nodes if (r := _residual(node, modules)) is not None]
        ends = Counter(residual.end for residual in residuals)
        for residual in residuals:
            if calls[residual.end] <= ends[residual.end]:
                found.setdefault(modules[residual.end], _below(path, residual))
    return list(found.values())


def traced_graphs(module: nn.Module, path: str = "") -> Iterator[tuple[str, fx.Graph]]:
    """The traced graph of a model, or those of its largest parts that can be traced, each with its path.

    Layers with weights, norms and modules without submodules and with one input are single nodes, whoever wrote them.
    """
    tracer = _Tracer()
    try:
        # A forward pass may draw random numbers.
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            graph = tracer.trace(module)
    except Exception:  # noqa: BLE001 - models fail to trace with any error there is; their parts may still do
        for name, child in module.named_children():
            if not tracer.is_leaf_module(child, name):
                yield from traced_graphs(child, _join(path, name))
    else:
        yield path, graph


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalizes, going by its class's name, which torch, torchvision and timm keep to.

    What holds layers with weights of their own (Conv2dNormActivation) does not.
    """
    return "norm" in type(module).__name__.lower() and not any(list(c.parameters()) for c in module.children())


class _Tracer(fx.Tracer):
    def __init__(self) -> None:
        super().__init__()
        self.inputs = 1

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.inputs = sum(isinstance(value, fx.Proxy) for value in (*args, *kwargs.values()))
        return super().call_module(m, forward, args, kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, LAYERS) or is_norm(m) or super().is_leaf_module(m, module_qualified_name):
            return True
        # A module of two inputs may be the addition itself.
        return self.inputs == 1 and next(m.children(), None) is None


def _residual(node: fx.Node, modules: dict[str, nn.Module]) -> Residual | None:
    """What ``node`` adds, if it is a residual addition whose branch ends in a module."""
    if _name(node) not in _ADDITIONS or len(operands := node.all_input_nodes) != 2:
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
            lengths[node] = min(ways) + (isinstance(_module(node, modules), LAYERS) or _name(node) in _FUNCTIONS)
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
    name = _name(node)
    return name in _PRODUCTS or name in _KEEP_ZERO or name in _RESHAPES or _is_noise(name)


def _is_noise(name: str) -> bool:
    return "drop" in name.lower() or name.lower().replace("_", "") == "stochasticdepth"


def _module(node: fx.Node, modules: dict[str, nn.Module]) -> nn.Module | None:
    return modules[str(node.target)] if node.op == "call_module" else None


def _name(node: fx.Node) -> str:
    """Name of the function or method that a node calls; empty for a node that calls none."""
    if node.op not in ("call_function", "call_method"):
        return ""
    return node.target if isinstance(node.target, str) else str(getattr(node.target, "__name__", ""))


def _stack(node: fx.Node) -> list[str]:
    """Paths of the modules that a call is made in, outermost first, the traced module itself as the empty path."""
    return ["", *(str(path) for path, _ in node.meta.get("nn_module_stack", {}).values())]


def _below(path: str, residual: Residual) -> Residual:
    return Residual(
        _join(path, residual.addition),
        _join(path, residual.end),
        None if residual.norm is None else _join(path, residual.norm),
        None if residual.layer is None else _join(path, residual.layer),
    )


def _join(path: str, name: str) -> str:
    return f"{path}.{name}".strip(".")
