"""The whole process bound to some physical cores for a while, so that timings meet the same hardware each time.

Without it the system moves threads between cores, whose caches are cold, and may set two of them on one core's two
hardware threads, where each computes at little more than half the speed.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TASKS = Path("/proc/self/task")
CPUS = Path("/sys/devices/system/cpu")
FAST = 0.9
"""Cores that reach this share of the highest clock are fast; the others are the frugal ones of mixed processors."""


@contextmanager
def bound_to_cores(count: int) -> Iterator[tuple[int, ...] | None]:
    """Bind every thread of this process to ``count`` cores within the block; each gets its own mask back after it.

    Threads that start within the block inherit the binding, and get the calling thread's mask after it.

    Args:
        count: cores to bind to, of those that the calling thread may use.

    Yields:
        The system's numbers of the processors bound to, or None where binding is not known (other systems than Linux)
        or not allowed (some containers).
    """
    if not hasattr(os, "sched_setaffinity") or not TASKS.is_dir():
        yield None
        return
    home = os.sched_getaffinity(0)
    before: dict[int, set[int]] = {}
    cpus: tuple[int, ...] | None = choose_cpus(home, count)
    try:
        try:
            _bind(set(cpus or ()), before)
        except OSError:  # forbidden
            cpus = None
            _give_back(before, home)
        yield cpus
    finally:
        if cpus is not None:
            _give_back(before, home)


def choose_cpus(allowed: Iterable[int], count: int) -> tuple[int, ...]:
    """Processors for ``count`` threads: one of each core first, fast cores first, those of one socket together.

    Args:
        allowed: numbers of the processors to choose from.
        count: how many; fewer come back where there are not as many.

    Returns:
        Their numbers, in ascending order.
    """
    numbers = sorted(allowed)
    clocks = {cpu: _number(cpu, "cpufreq/cpuinfo_max_freq") for cpu in numbers}
    slow_below = FAST * max(clocks.values(), default=0)
    cores: dict[str, int] = {}

    def preference(cpu: int) -> tuple[int, bool, int, int]:
        core = _text(cpu, "topology/thread_siblings_list") or str(cpu)
        taken = cores.get(core, 0)
        cores[core] = taken + 1
        return taken, clocks[cpu] < slow_below, _number(cpu, "topology/physical_package_id"), cpu

    return tuple(sorted(sorted(numbers, key=preference)[:count]))


def _bind(cpus: set[int], before: dict[int, set[int]]) -> None:
    for thread in _each_thread():
        with suppress(ProcessLookupError):  # it has ended
            before[thread] = os.sched_getaffinity(thread)
            os.sched_setaffinity(thread, cpus)


def _give_back(before: dict[int, set[int]], home: set[int]) -> None:
    for thread in _each_thread():
        with suppress(OSError):  # ended, or its processors were taken away meanwhile
            os.sched_setaffinity(thread, before.get(thread, home))


def _each_thread() -> Iterator[int]:
    """Every thread of this process, those included that start meanwhile."""
    seen: set[int] = set()
    while new := {int(entry.name) for entry in TASKS.iterdir()} - seen:
        yield from sorted(new)
        seen |= new


def _text(cpu: int, name: str) -> str:
    """What the system tells of a processor; empty where it does not."""
    try:
        return (CPUS / f"cpu{cpu}" / name).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _number(cpu: int, name: str) -> int:
    text = _text(cpu, name)
    return int(text) if text.lstrip("-").isdecimal() else 0
