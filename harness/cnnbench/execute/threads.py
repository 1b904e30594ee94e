"""Threads that a technique left running. Those of libraries are none of its doing.

Libraries keep threads for as long as the process lives (progress bars, pools, Ray, CodeCarbon), so one is told of only
where the function that it runs is neither an installed package's, nor Python's, nor the harness's. A thread of a
technique that is installed, or of a pool of Python's, is not told from those.
"""

from __future__ import annotations

import inspect
import sysconfig
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

_INSTALLED = [sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
_OF_OTHERS = [Path(place).resolve() for place in (*_INSTALLED, str(Path(__file__).parents[1]))]
_GRACE_SECONDS = 0.2
"""For one that is about to end: a loader's, whose last batch was just taken."""


def running() -> frozenset[threading.Thread]:
    """The threads that are there."""
    return frozenset(threading.enumerate())


def left_since(before: Collection[threading.Thread]) -> list[str]:
    """The names of a technique's threads that were not there before, and do not end."""
    new = [one for one in threading.enumerate() if one not in before and _of_technique(one)]
    for one in new:
        one.join(_GRACE_SECONDS / len(new))
    return [one.name for one in new if one.is_alive()]


def _of_technique(thread: threading.Thread) -> bool:
    file = getattr(getattr(_runs(thread), "__code__", None), "co_filename", "<")
    return not file.startswith("<") and not any(Path(file).resolve().is_relative_to(place) for place in _OF_OTHERS)


def _runs(thread: threading.Thread) -> Any:
    """The function that a thread runs; None where it can't be found."""
    run: Any = type(thread).run
    if run is threading.Thread.run:
        run = getattr(thread, "_target", None)
    elif run is threading.Timer.run:
        run = getattr(thread, "function", None)
    while isinstance(run, partial):
        run = run.func
    return None if run is None else inspect.unwrap(run)
