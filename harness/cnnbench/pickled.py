"""What a pickle would call, found without running it.

A restricted unpickler decides by name what may be looked up, and then calls whatever a file asks it to call with
whatever arguments: each class that a model may hold could be constructed from a file. A model's modules come back
without any such call, as blank instances with their state put in, so calls can be limited to a handful of functions.
"""

from __future__ import annotations

import pickletools
from typing import Any, Final

CALLED: Final = frozenset(
    {
        "collections.OrderedDict",
        "torch.Size",
        "torch.device",
        "builtins.set",
        "builtins.complex",
        "_codecs.encode",
        "functools.partial",
        "torch._utils._rebuild_device_tensor_from_cpu_tensor",  # an XLA device's
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_qtensor",
        "torch._utils._rebuild_sparse_tensor",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch._tensor._rebuild_from_type_v2",
        "torch.serialization._get_layout",
    }
)
"""Functions that make tensors, sizes and containers, and classes that only hold what they are given."""
_FROM_TYPE: Final = "torch._tensor._rebuild_from_type_v2"
"""Calls its first argument."""
_OTHER_CALLS: Final = frozenset({"INST", "OBJ", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX", "MEMOIZE"})
"""Operations of other protocols than the one that ``torch.save`` writes."""
_LONGEST: Final = 64 << 20
"""Bytes of a pickle; the tensors' bytes are not in it."""


class _Named(str):
    """A slot of the stack that holds what a dotted name stands for."""

    __slots__ = ()


class _Mark:
    """Where a list of operands begins on the stack."""


def refused_call(data: bytes) -> str | None:
    """The first thing that a pickle would call and that no model needs called; None where all is well.

    The stack machine of the pickle is followed with what each slot stands for: a name, a tuple of slots, or data.

    Raises:
        ValueError: it is no pickle, or longer than a model's is.
    """
    if len(data) > _LONGEST:
        raise ValueError(f"its pickle has {len(data):,} bytes, expected at most {_LONGEST:,}")
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for operation, argument, _ in pickletools.genops(data):
            if operation.name in _OTHER_CALLS:
                return f"operation {operation.name}"
            if operation.name != "REDUCE":
                _follow(operation, argument, stack, memo)
                continue
            given, called = stack.pop(), stack.pop()
            if wrong := _wrong_call(called, given):
                return wrong
            stack.append(None)
    except (IndexError, KeyError) as error:
        raise ValueError(f"its pickle takes what it has not put down ({type(error).__name__})") from error
    return None


def _follow(operation: pickletools.OpcodeInfo, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    """What an operation that calls nothing does to the stack."""
    match operation.name:
        case "GLOBAL":
            stack.append(_Named(str(argument).replace(" ", ".", 1).replace("__builtin__.", "builtins.", 1)))
        case "BINPUT" | "LONG_BINPUT" | "PUT":
            memo[int(argument)] = stack[-1]
        case "BINGET" | "LONG_BINGET" | "GET":
            stack.append(memo[int(argument)])
        case "DUP":
            stack.append(stack[-1])
        case "MARK":
            stack.append(_Mark)
        case "EMPTY_TUPLE":
            stack.append(())
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            count = int(operation.name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        case "TUPLE":
            stack.append(tuple(_popped(stack)))
        case _:
            for taken in reversed(operation.stack_before):
                if taken.name == "stackslice":
                    _popped(stack)
                elif taken.name != "mark":
                    stack.pop()
            stack += [None] * len(operation.stack_after)


def _popped(stack: list[Any]) -> list[Any]:
    """What lies above the last mark; both go."""
    place = len(stack) - 1 - stack[::-1].index(_Mark)
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _wrong_call(called: Any, given: Any) -> str | None:
    """The name of what may not be called; None for what may."""
    if not isinstance(called, _Named):
        return "an object of its own"
    if called not in CALLED:
        return str(called)
    if called == _FROM_TYPE:
        inner = given[0] if isinstance(given, tuple) and given else None
        return None if isinstance(inner, _Named) and inner in CALLED - {_FROM_TYPE} else _FROM_TYPE
    return None
