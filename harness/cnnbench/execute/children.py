"""Processes that a worker's techniques have started, and an end to those that outlive their task."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_OUR_OWN = ("multiprocessing.resource_tracker", "_inductor/compile_worker", "_inductor.compile_worker")
"""Helpers of Python's and torch's own, by their command lines: they serve the next task too."""
_LISTED = Path("/proc/thread-self/children")
"""Where Linux lists a thread's children: far quicker than to look at every process of the machine."""
_SECONDS_TO_END = 1.0


def adopt_orphans() -> None:
    """Have processes whose parent ends become this process's children, where the system can (Linux; prctl(2))."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(process: int) -> list[psutil.Process]:
    """All processes below one, those that have ended left out."""
    numbers = _below(process) if _LISTED.exists() else None
    found = []
    if numbers is None:
        with suppress(psutil.Error):
            found = psutil.Process(process).children(recursive=True)
    for number in numbers or ():
        with suppress(psutil.Error):
            found.append(psutil.Process(number))
    return found


def _below(process: int) -> list[int]:
    """Numbers of all processes below one, from the kernel's own lists."""
    found: list[int] = []
    for lists in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            children = [int(word) for word in lists.read_text().split()]
            found += [*children, *(one for child in children for one in _below(child))]
    return found


def below() -> frozenset[psutil.Process]:
    """What runs below this process now."""
    return frozenset(descendants(os.getpid())) if _any_child() else frozenset()


def end_leftovers(before: frozenset[psutil.Process] = frozenset()) -> list[str]:
    """End what runs below this process, but for helpers of Python's and torch's own.

    Args:
        before: what is left alone too.

    Returns:
        The names of what was ended, each once.
    """
    ended = []
    for one in below() - before:
        with suppress(psutil.Error):
            if one.status() == psutil.STATUS_ZOMBIE:
                one.wait(0)
                continue
            if any(name in " ".join(one.cmdline()) for name in _OUR_OWN):
                continue
            name = one.name()
            one.kill()
            ended.append(name)
            one.wait(_SECONDS_TO_END)  # takes its exit code too
    return sorted(set(ended))


def end_all(processes: list[psutil.Process], group: int | None = None) -> None:
    """End processes, known by number and start, and a whole process group.

    Args:
        processes: one whose number another process has by now is left alone.
        group: its number, that of a worker that has ended; one that is empty is no error.
    """
    if group is not None and hasattr(os, "killpg"):
        with suppress(OSError):
            os.killpg(group, 9)
    for one in processes:
        with suppress(psutil.Error):
            one.kill()


def _any_child() -> bool:
    """Whether this process has children at all, ended ones included; cheap, where looking for them is not."""
    if not hasattr(os, "waitid"):
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
