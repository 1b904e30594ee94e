"""How much memory this process can still have: of the machine's, and within the limits of its container or job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path("/")
_NO_LIMIT = 1 << 60  # version 1 writes some such number where there is none


def free_bytes(root: Path = _ROOT) -> int:
    """Memory that can be had without swapping, in bytes, on this machine or within the limit of this container or job.

    Args:
        root: where ``proc`` and ``sys`` are found.
    """
    return min([int(psutil.virtual_memory().available), *_free_in_groups(root)])


def _free_in_groups(root: Path) -> Iterator[int]:
    """Bytes left under each limit that Linux's control groups set for this process, of either version."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            base, limit, used, cache = root / "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit, used = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        # Within a container the path may be the host's: then the limit stands at the root of what is mounted.
        folder = base / path.lstrip("/")
        for group in [folder, *folder.parents]:
            if (most := _number(group / limit)) is not None and most < _NO_LIMIT:
                # What files the system keeps in memory can be dropped, although it counts as used.
                yield max(0, most - (_number(group / used) or 0) + (_entry(group / "memory.stat", cache) or 0))
            if group == base:
                break


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such file, or ``max``
        return None


def _entry(file: Path, name: str) -> int | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(words[1]) for words in map(str.split, lines) if len(words) == 2 and words[0] == name), None)
