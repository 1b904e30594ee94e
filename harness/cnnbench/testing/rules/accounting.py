"""Rules about what is counted: parameters and multiply-adds, each against a count of the kit's own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from cnnbench.stages.profile import count_flops, count_parameters
from cnnbench.testing.modules import BUILT, MODULES, during, own, plainest
from cnnbench.testing.networks import outputs
from cnnbench.testing.rule import Broken, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cnnbench.testing.subject import Subject

_LEAVES = frozenset({"numpy", "__array__", "tolist", "__dlpack__"})
"""Methods of a tensor that hand its numbers to others than torch."""

_NO_WORK = frozenset({"aten", "prim", "prims", "quantized_decomposed"})
"""Operators that multiply matrices only where there is a formula for it; those that quantize round, no more."""


def _parameters(subject: Subject) -> None:
    module, x = own(subject)
    module.train()
    with during("in training mode"):
        logits = module(x)
    named = {id(p): name for name, p in module.named_parameters()}
    for leaf in _leaves(logits):
        if id(leaf) not in named:
            raise Broken(
                f"a tensor {list(leaf.shape)} gets gradients and is no parameter of the module: no optimizer moves it, "
                "and nothing counts it"
            )
    memory: dict[int, str] = {}
    ours = 0
    for name, p in module.named_parameters():
        if p.numel() and p.data_ptr() in memory:
            raise Broken(f"parameters {memory[p.data_ptr()]!r} and {name!r} share their memory: they are counted twice")
        memory[p.data_ptr()] = name
        ours += math.prod(p.shape)
    theirs = count_parameters(module)["params"]
    if theirs != ours:
        raise Broken(f"the harness counts {theirs} parameters, the kit {ours}")


def _leaves(value: torch.Tensor) -> Iterator[torch.Tensor]:
    """Tensors into which the backward pass from a value would put gradients."""
    ahead, seen = [value.grad_fn], set()
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        ahead += [following for following, _ in node.next_functions]


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's hook for subclasses
    """Counts multiply-adds by a formula for each of torch's basic operators, and notes operators of others."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # untyped in torch
        self.count = 0
        self.unknown: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name()
        formula = _FORMULAS.get(name.partition("::")[2].partition(".")[0]) if name.startswith("aten::") else None
        if formula is not None:
            self.count += formula(args, out)
        elif func.namespace not in _NO_WORK and func.overloadpacket not in flop_registry:
            self.unknown.append(name)
        return out


def _of_convolution(args: Any, out: Any) -> int:
    inputs, weight, transposed = args[0], args[1], args[6]
    # Each value of the output, or of a transposed one's input, meets one filter.
    return int((inputs if transposed else out).numel() * weight[0].numel())


_FORMULAS: Mapping[str, Callable[[Any, Any], int]] = {
    "convolution": _of_convolution,
    "mm": lambda args, out: out.numel() * args[0].shape[-1],
    "bmm": lambda args, out: out.numel() * args[0].shape[-1],
    "addmm": lambda args, out: out.numel() * args[1].shape[-1],
    "baddbmm": lambda args, out: out.numel() * args[1].shape[-1],
    "linear": lambda args, out: out.numel() * args[0].shape[-1],
}


class _Watch(TorchFunctionMode):
    """Notes where numbers leave torch."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _LEAVES:
            self.left.append(resolve_name(func) or func.__name__)
        return func(*args, **(kwargs or {}))


def _flops(subject: Subject) -> None:
    module, x = plainest(subject)
    x = x[:1]
    with _Watch() as watch:
        outputs(module, x)
    if watch.left:
        raise Broken(
            f"its forward pass hands numbers to others than torch ({watch.left[0]}), where no counter sees them"
        )
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), _Count() as counter:
            outputs(module, x)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    if hasattr(module, "flops_of_source"):
        return  # it says itself what a conversion hid
    if counter.unknown:
        raise Broken(f"it runs {counter.unknown[0]}, an operator whose multiply-adds no counter knows")
    counted = count_flops(module, x)
    if counted != counter.count:
        raise Broken(f"the harness counts {counted} multiply-adds, the kit {counter.count}")


RULES: tuple[Rule, ...] = (
    Rule(
        "parameters-counted",
        "every tensor that gets a gradient is a registered parameter, and none is counted twice",
        "assign nn.Parameter to attributes of the module; keep submodules as attributes or in nn.ModuleList",
        _parameters,
        BUILT,
    ),
    Rule(
        "flops-counted",
        "all its multiply-adds are of torch's own operators, where the harness counts them",
        "compute with torch rather than NumPy; a compressor's network may carry flops_of_source; for a custom operator "
        "torch.utils.flop_counter.register_flop_formula",
        _flops,
        MODULES,
    ),
)
