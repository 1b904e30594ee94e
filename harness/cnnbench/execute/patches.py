"""Functions and classes that somebody put in the place of others: found, and put back.

Looked at are torch's public names that a network and its training go through, the clock, and Python's built-ins. What
is merely added to a namespace (a module that is imported late) counts for nothing.
"""

from __future__ import annotations

import builtins
import inspect
import random
import time
from operator import is_
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # on import it replaces some of torch's names itself: not in the midst of a task
from torch import nn

_MODULES = (
    torch,
    torch.autograd,
    torch.backends.cudnn,
    torch.fft,
    torch.linalg,
    nn,
    nn.functional,
    nn.init,
    nn.utils,
    torch.optim,
    torch.optim.lr_scheduler,
    torch.random,
    torch.serialization,
    builtins,
    random,
    time,
)


def _namespaces() -> tuple[Any, ...]:
    homes = (torch, torch.autograd, nn, torch.optim, torch.optim.lr_scheduler)
    classes = {
        value: None
        for home in homes
        for value in vars(home).values()
        if isinstance(value, type) and value.__flags__ & _CAN_CHANGE
    }
    return (*_MODULES, *classes)


_TORCH = Path(torch.__file__).parent
_CAN_CHANGE = 1 << 9
"""Set for classes made in Python, the only ones whose attributes can be replaced (Py_TPFLAGS_HEAPTYPE)."""


class Names:
    """Names and what they stood for when this was made."""

    def __init__(self) -> None:
        self._known = [(home, dict(vars(home))) for home in _namespaces()]

    def put_back(self) -> list[str]:
        """Set what was replaced or removed to what it was; returns the dotted names."""
        found = []
        for home, known in self._known:
            now = vars(home)
            if all(map(is_, map(now.get, known), known.values())):
                continue
            for name, value in known.items():
                if now.get(name) is not value and _is_code(value) and not _by_torch(now.get(name)):
                    setattr(home, name, value)
                    found.append(f"{_dotted(home)}.{name}")
        return found


def _is_code(value: Any) -> bool:
    """Whether it is a function, a class or a property: plain values, such as the names of time zones, may change."""
    return callable(value) or hasattr(value, "__get__")


def _by_torch(value: Any) -> bool:
    """Whether torch put it there: for an optimizer's ``step`` when one is first made, or when it first compiles.

    Importing torch_xla replaces some of torch's names as well.
    """
    if "torch_xla" in (getattr(value, "__module__", None) or "").split(".") or "torch_xla" in _file(value).parts:
        return True
    if getattr(value, "hooked", False) and getattr(value, "__module__", "").startswith("torch.optim"):
        return True
    # What it wraps has to be torch's too: a technique may borrow the wrapper.
    return all(_file(one).is_relative_to(_TORCH) for one in (value, inspect.unwrap(value))) and (
        _TORCH / "_dynamo" in _file(value).parents or _file(value) == _TORCH / "_compile.py"
    )


def _file(value: Any) -> Path:
    """Where a function's code stands; nowhere for anything else."""
    return Path(getattr(getattr(value, "__code__", None), "co_filename", ""))


def _dotted(home: Any) -> str:
    return f"{home.__module__}.{home.__qualname__}" if isinstance(home, type) else str(home.__name__)
