"""What libraries leave changed in a process when they are first used: it stays, and no technique is told of.

Each function is given what was there before a task and what is there after, and says what should be there. Libraries do
this once for the process and rely on it: what is put back they would not set again.
"""

from __future__ import annotations

import os
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_VARIABLES = frozenset({
    "CUBLAS_WORKSPACE_CONFIG",  # torch._inductor.fx_passes.numeric_utils, on import
    "CUDA_HOME",  # torch._inductor.cpp_builder
    "TORCHINDUCTOR_CACHE_DIR",  # where the processes that compile find what is compiled
    "TORCH_WARM_POOL",
    "TRITON_CACHE_DIR",
    "TRITON_LIBDEVICE_PATH",
    "TRITON_PTXAS_PATH",
})  # fmt: skip
_PREFIXES = (
    "_TORCHINDUCTOR_",  # addresses that compiled code looks up
    "KMP_",  # OpenMP's; scikit-learn and torch set them on import
    "__KMP_",
    "RAY_",
)
_LIBRARIES = frozenset({"torch", "multiprocessing", "ray", "asyncio"})
"""Their handlers stay: a loader's of ended workers, for one, which torch sets once."""
_SITE = tuple(Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib"))
"""setuptools and Ray look into folders of their own there once they are imported."""
_DEEPEST = 2000
"""To which depth torch's compiler raises the recursion limit."""


def variables(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """The environment: what libraries added."""
    added = {name for name in after.keys() - before.keys() if name in _VARIABLES or name.startswith(_PREFIXES)}
    return {**before, **{name: after[name] for name in added}}


def places(before: list[str], after: list[str]) -> list[str]:
    """``sys.path``: where torch's compiler puts what it has made, and folders within installed packages."""
    kept = [one for one in after if one in before or _installed(one)]  # Ray puts its own first
    return kept if [one for one in kept if one in before] == before else before


def depth(before: int, after: int) -> int:
    """The recursion limit: as deep as torch's compiler needs it."""
    return max(before, after) if after <= _DEEPEST else before


def handlers(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Signal handlers."""
    return {name: after[name] if _by_library(after.get(name)) else value for name, value in before.items()}


def hook(before: Any, after: Any) -> Any:
    """A hook of ``sys``, or a stream."""
    return after if _by_library(after) else before


def _installed(path: str) -> bool:
    made = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or str(Path(tempfile.gettempdir(), "torchinductor_"))
    return path.startswith(made) or any(Path(path).is_relative_to(one) for one in _SITE)


def _by_library(value: Any) -> bool:
    return str(getattr(value, "__module__", None)).partition(".")[0] in _LIBRARIES
