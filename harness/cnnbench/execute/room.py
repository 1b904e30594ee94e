"""How much memory there is for workers, and who still fits beside what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.host_memory import free_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

MIB = 1024 * 1024
WORKER_MIB = 300
"""What a worker holds by itself, the libraries that all share left out: Python, torch's own data, a small dataset."""
SHARE = 0.9
"""Of the memory that is free, how much a run may plan with."""


def free_mib() -> float:
    """Memory that can be had without swapping, in MiB."""
    return free_bytes() / MIB


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
