"""Functions and classes that somebody put in the place of others: found, and put back.

Looked at are torch's public names that a network and its training go through, and what the harness itself stands on:
Python's built-ins, the modules of the standard library that it works with, NumPy, and its own modules. What is merely
added to a namespace (a module that is imported late) counts for nothing, and neither do values that are no code.
"""

from __future__ import annotations

import builtins
import copy
import inspect
import io
import json
import math
import os
import pathlib
import pickle
import random
import shutil
import sys
import tempfile
import time
from functools import lru_cache
from operator import is_
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch._dynamo  # on import it replaces some of torch's names itself: not in the midst of a task
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable

_TORCHS = (
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
)
_PYTHONS = (
    builtins,
    sys,
    os,
    os.path,
    io,
    pathlib,
    shutil,
    tempfile,
    copy,
    pickle,
    json,
    json.encoder,
    json.decoder,
    math,
    random,
    time,
    np,
    np.random,
)
_CHANGES = frozenset({"breakpointhook", "displayhook", "excepthook", "last_type", "unraisablehook"})
"""Names of ``sys`` that are there to be set, or that Python sets itself."""
_TORCH = Path(torch.__file__).parent
_CAN_CHANGE = 1 << 9
"""Set for classes made in Python, the only ones whose attributes can be replaced (Py_TPFLAGS_HEAPTYPE)."""


def torchs() -> tuple[Any, ...]:
    """Torch's namespaces: modules, and the classes in them."""
    return (*_TORCHS, *_classes((torch, torch.autograd, nn, torch.optim, torch.optim.lr_scheduler)))


def foundations() -> tuple[Any, ...]:
    """The namespaces of Python, of NumPy, and of what is loaded of the harness."""
    return _foundations(len(sys.modules))


@lru_cache(maxsize=1)
def _foundations(_loaded: int) -> tuple[Any, ...]:
    """Looked for again once something more is loaded: thousands of modules take longer than all the rest here."""
    own = [
        module
        for name, module in tuple(sys.modules.items())
        if name.partition(".")[0] == "cnnbench" and isinstance(module, ModuleType)
    ]
    lent = (pathlib, tempfile, json, json.encoder, json.decoder, pickle)
    homes = {one.__name__ for one in (*lent, *own)}
    return (*_PYTHONS, *own, *(one for one in _classes((*lent, *own)) if one.__module__ in homes))


def _classes(homes: Iterable[Any]) -> tuple[type, ...]:
    found = {
        value: None
        for home in homes
        for value in tuple(vars(home).values())
        if isinstance(value, type) and value.__flags__ & _CAN_CHANGE
    }
    return tuple(found)


class Names:
    """Names and what they stood for when this was made.

    Args:
        homes: the namespaces to watch.
    """

    def __init__(self, homes: Iterable[Any]) -> None:
        self._known = [(home, dict(vars(home))) for home in homes]

    def put_back(self) -> list[str]:
        """Set what was replaced or removed to what it was; returns the dotted names."""
        found = []
        for home, known in self._known:
            now = vars(home)
            if all(map(is_, map(now.get, known), known.values())):
                continue
            for name, value in known.items():
                if now.get(name) is value or name in _CHANGES or not _is_code(value):
                    continue
                if not _by_torch(now.get(name)):
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
