"""Freed memory that a worker keeps for its next step.

glibc hands every large block back to the system as soon as it is freed, and asks for it again a moment later: a step of
training then begins with thousands of pages that the system has to find and clear anew. A worker trains all its life.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
KEPT_BYTES = 512 * 1024 * 1024
"""Freed memory above this goes back to the system: a large model's must not stay with a worker that now has a small."""


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
    return bool(mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))
