"""The built-in techniques. They register through the entry-point group that any plugin uses.

Each folder is a slot; its modules hold the techniques and list them in ``TECHNIQUES``. Nothing here imports torch
until a technique is used, so that suites are checked and techniques listed at once.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from cnnbench.hookspecs import hookimpl
from cnnbench_plugins._advice import advice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_WITH_OWN_HOOK = ("model", "dataset")


def _techniques(slot: str) -> Iterator[type[Any]]:
    """The techniques of every module in a slot's folder; modules whose name starts with ``_`` are helpers."""
    folder = importlib.import_module(f"{__name__}.{slot}")
    for info in sorted(pkgutil.iter_modules(folder.__path__), key=lambda i: i.name):
        if not info.name.startswith("_"):
            yield from importlib.import_module(f"{folder.__name__}.{info.name}").TECHNIQUES


@hookimpl
def cnnbench_register_techniques() -> list[type[Any]]:
    """Every technique of the slots without a hook of their own."""
    folders = sorted(info.name for info in pkgutil.iter_modules(__path__) if info.ispkg)
    return [cls for slot in folders if slot not in _WITH_OWN_HOOK for cls in _techniques(slot)]


@hookimpl
def cnnbench_register_models() -> list[type[Any]]:
    """The small-image networks, torchvision's, and the user's own by import path."""
    return list(_techniques("model"))


@hookimpl
def cnnbench_register_datasets() -> list[type[Any]]:
    """The datasets."""
    return list(_techniques("dataset"))


@hookimpl
def cnnbench_advise_arm(settings: Mapping[str, Any]) -> list[str]:
    """Combinations of the techniques here that are known to go wrong."""
    return advice(settings)
