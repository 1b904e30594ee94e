"""torch, imported when it is first used.

``from cnnbench.lazy import F, nn, torch`` lets a technique's options be read, listed and validated without the
seconds that importing torch takes. Type checkers see the real modules. Code that subclasses ``nn.Module`` needs the
real import: put it in a module of its own and import that where the layer is made.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from cnnbench.interrupt import held_back

if TYPE_CHECKING:
    import torch as torch  # noqa: PLC0414 - re-exported
    import torch.nn as nn  # noqa: PLR0402
    import torch.nn.functional as F
else:

    class _LazyModule:
        """Stands in for a module until one of its attributes is asked for."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            if self._name not in sys.modules:
                with held_back():
                    importlib.import_module(self._name)
            value = getattr(sys.modules[self._name], attribute)
            setattr(self, attribute, value)  # found at once the next time
            return value

    torch = _LazyModule("torch")
    nn = _LazyModule("torch.nn")
    F = _LazyModule("torch.nn.functional")

__all__ = ["F", "nn", "torch"]
