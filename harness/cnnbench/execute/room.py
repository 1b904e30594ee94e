"""How much memory there is for workers, and who still fits beside what runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MIB = 1024 * 1024
WORKER_MIB = 300
"""What a worker holds by itself, the libraries that all share left out: Python, torch's own data, a small dataset."""
SHARE = 0.9
"""Of the memory that is free, how much a run may plan with."""

_ROOT = Path("/")
_NO_LIMIT = 1 << 60  # version 1 writes some such number where there is none


def free_mib(root: Path = _ROOT) -> float:
    """Memory that can be had without swapping, in MiB, on this machine or within the limit of this container or job.

    Args:
        root: where ``proc`` and ``sys`` are found.
    """
    free = float(psutil.virtual_memory().available)
    return min([free, *_free_in_groups(root)]) / MIB


def workers_for(mib: float) -> int:
    """How many workers have room in so much memory; at least one."""
    return max(1, int(mib * SHARE // WORKER_MIB))


def fits(need: float, running: Iterable[float], idle: int, room: float) -> bool:
    """Whether a stage can start beside those that run; alone, any can.

    Args:
        need: MiB that its process may come to hold.
        running: of each stage that runs.
        idle: workers that live on with nothing to do, beside the one that it would take.
        room: MiB for all.
    """
    others = list(running)
    if not others:
        return True
    return sum(max(mib, WORKER_MIB) for mib in [need, *others]) + idle * WORKER_MIB <= room


def _free_in_groups(root: Path) -> Iterator[float]:
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
                yield max(0.0, most - (_number(group / used) or 0) + (_entry(group / "memory.stat", cache) or 0))
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
