"""cnnbench: controlled ablations of the techniques that make convolutional networks better.

Plugins use ``technique``, ``Requirement`` and ``hookimpl``; scripts and notebooks ``Suite``, ``run`` and ``Results``.
"""

__version__ = "0.1.0"

from typing import TYPE_CHECKING

from cnnbench.hookspecs import hookimpl
from cnnbench.technique import Requirement, technique

if TYPE_CHECKING:
    from cnnbench.api import Results, Suite, SuitePlan, run

__all__ = ["Requirement", "Results", "Suite", "SuitePlan", "__version__", "hookimpl", "run", "technique"]


def __getattr__(name: str) -> object:
    """What runs suites is imported when it is first asked for: ``cnnbench --help`` does without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cnnbench import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
