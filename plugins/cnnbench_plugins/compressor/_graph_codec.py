"""Graphs of tensor operators as plain data, so that a quantized network can be stored and read without running code.

A converted network is a graph of operator calls, not a module tree. Its usual file formats rebuild it by evaluating
text from the file. Here a graph is a list of nodes that names operators from a short list of namespaces; anything else
is refused when it is read.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch import fx, nn

_NAMESPACES = ("aten", "quantized_decomposed")
# Arithmetic on sizes, which a dynamic batch brings in.
_OPERATORS = ("add", "sub", "mul", "floordiv", "mod", "getitem", "eq", "ne", "le", "lt", "ge", "gt")

Nodes = list[dict[str, Any]]
"""One dictionary a node: ``op``, ``name``, ``target``, ``args``, ``kwargs``, all plain."""


def encode(graph: fx.Graph) -> Nodes:
    """The graph as plain data.

    Raises:
        ValueError: it calls something that ``decode`` would refuse, or returns more than one tensor.
    """
    nodes: Nodes = []
    for node in graph.nodes:
        if node.op == "output":
            results = node.args[0]
            if isinstance(results, list | tuple):
                if len(results) != 1:
                    raise ValueError(f"expected one output tensor, found {len(results)}")
                results = results[0]
            target, args = "output", _plain((results,))
        else:
            target, args = _target_name(node), _plain(node.args)
        kwargs = {key: _plain(value) for key, value in node.kwargs.items()}
        nodes.append({"op": node.op, "name": node.name, "target": target, "args": args, "kwargs": kwargs})
    return nodes


def decode(nodes: Nodes, root: nn.Module) -> fx.GraphModule:
    """The graph again, as a module that shares the tensors of ``root``.

    Args:
        nodes: what ``encode`` gave.
        root: has each tensor that the graph reads as an attribute.

    Raises:
        ValueError: the data name an operator or tensor that is not allowed or not there.
    """
    graph = fx.Graph()
    known: dict[str, fx.Node] = {}
    for node in nodes:
        op, name, target = node["op"], node["name"], node["target"]
        args = _live(node["args"], known)
        kwargs = {key: _live(value, known) for key, value in node["kwargs"].items()}
        if not (isinstance(name, str) and name.isidentifier()):
            raise ValueError(f"a graph node has the name {name!r}")
        if op == "placeholder":
            known[name] = graph.placeholder(name)
        elif op == "get_attr" and isinstance(getattr(root, target, None), torch.Tensor):
            known[name] = graph.create_node("get_attr", target, name=name)
        elif op == "call_function":
            known[name] = graph.create_node("call_function", _function(target), tuple(args), kwargs, name=name)
        elif op == "output":
            graph.output(args[0])
        else:
            raise ValueError(f"a graph node has operation {op!r} on {target!r}")
    graph.lint()
    return fx.GraphModule(root, graph)


def _target_name(node: fx.Node) -> str:
    target = node.target
    if node.op != "call_function":
        return str(target)
    if isinstance(target, torch._ops.OpOverload):  # noqa: SLF001 - the type of what torch.ops holds
        name = str(target)
    else:
        name = f"operator.{getattr(target, '__name__', target)}"
    if _function(name) is not target:
        raise ValueError(f"the graph calls {target}, which has no counterpart here")
    return name


def _function(name: str) -> Any:
    parts = name.split(".")
    if parts[0] == "operator" and len(parts) == 2 and parts[1] in _OPERATORS:
        return getattr(operator, parts[1])
    if parts[0] in _NAMESPACES and len(parts) == 3:
        packet = getattr(getattr(torch.ops, parts[0]), parts[1], None)
        found = getattr(packet, parts[2], None)
        if isinstance(found, torch._ops.OpOverload):  # noqa: SLF001
            return found
    raise ValueError(f"a graph node calls {name!r}")


def _plain(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
        return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"the graph holds {value!r} of type {type(value).__name__}")


def _live(value: Any, known: dict[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return [_live(item, known) for item in value]
    if isinstance(value, dict):
        ((kind, name),) = value.items()
        if kind == "node" and name in known:
            return known[name]
        if kind == "device":
            return torch.device(name)
        found = getattr(torch, name, None) if kind == "torch" else None
        if isinstance(found, torch.dtype | torch.memory_format | torch.layout):
            return found
        raise ValueError(f"a graph node refers to {value!r}")
    return value
