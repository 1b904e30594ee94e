"""Freed memory that a worker keeps for its next step.

glibc hands every large block back to the system as soon as it is freed, and asks for it again a moment later: a step of
training then begins with thousands of pages that the system has to find and clear anew. A worker trains all its life.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
KEPT_BYTES = 512 * 1024 * 1024
"""Freed memory above this goes back to the system: a large model's must not stay with a worker that now has a small."""
_LARGEST_OF_OLD = 32 * 1024 * 1024
"""The largest block that glibc before 2.35 can be told to keep."""
SHORT_MIB = 4 * KEPT_BYTES / 2**20
"""With less memory free than this a worker keeps none between tasks."""
IDLE_SECONDS = 1.0
"""A worker that has waited for a task this long gives back what it kept."""


def keep_freed_memory() -> bool:
    """Serve blocks of up to ``KEPT_BYTES`` from memory that this process keeps, as far as that much of it is free.

    ``malloc_trim`` still gives all of it back. mallopt(3): ``M_MMAP_THRESHOLD``, ``M_TRIM_THRESHOLD``.

    Returns:
        Whether the C library took it: glibc does.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none by that way
        return False
    trimmed = bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))
    return any(mallopt(_M_MMAP_THRESHOLD, size) for size in (KEPT_BYTES, _LARGEST_OF_OLD)) and trimmed


def give_back_freed_memory() -> None:
    """Hand what this process keeps back to the system, which no account of memory counts (malloc_trim(3))."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
