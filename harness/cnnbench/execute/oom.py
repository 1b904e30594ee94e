"""Want of memory: what Linux tells of a process that it ended for it (others tell nothing), and when it is near."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/")


def kills(root: Path = _ROOT) -> int:
    """How many processes the kernel has ended for want of memory, on this machine or in this container, so far.

    Args:
        root: where ``proc`` and ``sys`` are found.
    """
    counts = (
        _count(root / "proc/vmstat", "oom_kill"),
        _count(root / "sys/fs/cgroup/memory.events", "oom_kill"),
    )
    return sum(counts)  # one kill may show in both: what matters is whether the sum rises


def high_water_mib(process: int, root: Path = _ROOT) -> float | None:
    """The most memory that a running process has held, in MiB; None where that can't be read."""
    value = _count(root / f"proc/{process}/status", "VmHWM:")
    return value / 1024 if value else None


def margin_mib(free: float) -> float:
    """How little free memory is too little: a twentieth of what there was, 128 MiB to 2 GiB.

    Args:
        free: the machine's free memory before anything runs, in MiB.
    """
    return min(2048.0, max(128.0, free / 20))


def _count(file: Path, name: str) -> int:
    """The number behind ``name`` in a file of names and numbers, 0 where there is none."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return next((int(words[1]) for words in map(str.split, lines) if len(words) > 1 and words[0] == name), 0)
