"""A worker process as its parent sees it: how it starts, what it is doing, and how it ends, whatever it does.

Importing this imports no torch.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import psutil

from cnnbench.execute.cache import clear_scratch
from cnnbench.execute.children import descendants, end_all
from cnnbench.execute.interface import Outcome, Status, Task
from cnnbench.execute.lastwords import LastWords
from cnnbench.execute.oom import high_water_mib, kills
from cnnbench.execute.temporary import run_folder, settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from cnnbench.local_plugins import LocalPlugin

BEGUN = "begun"
"""A worker says so when it takes up a task: its time limit counts from there, not from the worker's own start."""
LEAVING = "leaving"
"""A worker says so before its last outcomes: it is worth no further task, and ends by itself."""
CUT_OFF = 113
"""Exit code of a worker whose connection to the run is closed, be it that nobody is there any more to see it."""
DUMP = getattr(signal, "SIGUSR1", None)
"""A worker answers this signal with its stack, on its stderr."""
_UNKNOWN = 255
"""The exit code that Python makes up for a process that it can't know of."""
DUMP_SECONDS = 0.5
LOOK_SECONDS = 1.0
"""How often busy workers are looked at: the memory reached should be known if the system ends one."""


@dataclass(frozen=True)
class Loading:
    """A worker is about to import a plugin, by the name of its entry point."""

    plugin: str


@dataclass(frozen=True)
class Start:
    """What a worker is started with.

    Attributes:
        path: the parent's ``sys.path``, so that techniques are found there as they were here.
        binding: environment variables that bind it to a device of its own, and name the run's temporary folder.
        folder: empty, its working directory; it goes with the worker.
        without: plugins, by name, that are left out because a worker could not import them, with the reason.
        local: plugins that are not installed.
    """

    path: tuple[str, ...] = ()
    binding: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    without: Mapping[str, str] = field(default_factory=dict)
    local: tuple[LocalPlugin, ...] = ()


@dataclass
class Worker:
    """One process, busy while it has a task."""

    process: BaseProcess
    pipe: Connection[Any, Any]
    place: int = 0
    words: LastWords = field(default_factory=LastWords)
    folder: str = ""
    task: Task | None = None
    began: float | None = None
    handed: float = 0.0
    loading: str | None = None
    up: bool = False
    leaving: bool = False
    peak_mib: float | None = None
    kills_before: int = 0
    idle_seconds: float = 0.0
    orphan: bool = False
    _own: psutil.Process | None = None
    _looked: float = 0.0
    _cpu: float = 0.0
    _below: list[psutil.Process] = field(default_factory=list)

    def take(self, task: Task) -> None:
        """Make a task its own, and hand it over."""
        self.task, self.began, self.peak_mib, self.kills_before = task, None, None, kills()
        self.handed = self._looked = time.monotonic()
        self.idle_seconds = self._cpu = 0.0
        self.words.clear()
        with suppress(OSError):  # it died while idle: whoever waits for it finds its pipe closed
            self.pipe.send(task)

    def look(self) -> None:
        """Note the memory that it has reached, the processes below it, and for how long it has used no CPU time."""
        now = time.monotonic()
        # A machine that slept, or a run that was stopped, is not a worker that did nothing.
        passed, self._looked = min(now - self._looked, 2 * LOOK_SECONDS), now
        if self.process.pid is None:
            return
        if (reached := high_water_mib(self.process.pid)) is not None:
            self.peak_mib = reached
        self._below = descendants(self.process.pid)
        cpu = sum(map(_cpu_seconds, [_of(self.process.pid), *self._below]))
        self.idle_seconds = 0.0 if cpu > self._cpu + 0.001 * passed else self.idle_seconds + passed
        self._cpu = cpu

    @property
    def ended(self) -> bool:
        """Whether the process is no more.

        Python tells of a process through the one that it was forked from. When that has ended (a technique may end its
        parent), each that it forked counts as ended with exit code 255: such a one that lives is an ``orphan``.
        """
        if self.process.is_alive():
            return False
        if self.process.exitcode == _UNKNOWN and self._own is not None:
            with suppress(psutil.Error):
                self.orphan |= (lives := self._own.is_running() and self._own.status() != psutil.STATUS_ZOMBIE)
                return not lives
        return True

    @property
    def deadline(self) -> float | None:
        """When its task is overdue, on the monotonic clock."""
        limit = self.task.time_limit if self.task else None
        return None if limit is None or self.began is None else self.began + limit

    @property
    def held_mib(self) -> float:
        """Memory that it and the processes below it hold now, in MiB."""
        held = 0.0
        for one in [_of(self.process.pid), *self._below]:
            with suppress(psutil.Error, AttributeError):
                held += one.memory_info().rss / 2**20
        return held

    def say_where(self) -> None:
        """Have it print its stack; what it printed is in ``words``."""
        pid = self.process.pid
        if DUMP is None or pid is None or self.words.pipe is None or self.began is None:
            return
        self.words.drain()
        with suppress(OSError):
            os.kill(pid, DUMP)
        until = time.monotonic() + DUMP_SECONDS
        while (left := until - time.monotonic()) > 0:
            self.words.drain(left)
            if self.words.stack is not None or self.words.pipe is None:
                break

    def outcomes(self, status: Status, reason: str) -> list[Outcome]:
        """What all that it was to do comes to when it is lost."""
        assert self.task is not None
        if self.words.place is not None:
            reason = f"{reason}, at {self.words.place}"
        seconds = 0.0 if self.began is None else time.monotonic() - self.began
        keys = [one.key for one in self.task.members if one.folder]
        return [with_log(Outcome(key, status, reason, self.words.stack, seconds=seconds), self.words) for key in keys]

    def kill(self) -> None:
        """End the process whatever it is doing, and what it started, and remove what it had half done."""
        pid = self.process.pid
        self.pipe.close()
        below = [*self._below, *(descendants(pid) if pid is not None and not self.ended else ())]
        if self.process.is_alive():
            self.process.kill()
        elif self.orphan and self._own is not None:
            below.append(self._own)
        self.process.join()
        end_all(below, pid if self.folder else None)  # one with a folder leads a group of its own
        self.words.close()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self.task is not None and pid is not None:
            for one in (member for member in self.task.members if member.folder):
                clear_scratch(Path(one.folder), pid)


def start(
    context: Any,
    entry: Any,
    place: int,
    binding: Mapping[str, str],
    without: Mapping[str, str],
    local: tuple[LocalPlugin, ...],
) -> Worker:
    """Start a worker.

    Args:
        context: of ``multiprocessing``.
        entry: the process's function: it is given its pipe, a ``Start``, and where its output goes.
        place: its number.
        binding: see ``Start``.
        without: see ``Start``.
        local: see ``Start``.
    """
    ours, theirs = context.Pipe()
    output, end = context.Pipe(duplex=False) if os.name == "posix" else (None, None)
    folder = tempfile.mkdtemp(prefix="worker-", dir=run_folder())
    binding = {**binding, **settings()}
    path = tuple(os.path.abspath(one) for one in sys.path)  # noqa: PTH100 - "" is the working directory
    begin = Start(path, binding, folder, without, local)
    process = context.Process(target=entry, args=(theirs, begin, end), daemon=False)
    with main_unseen():
        process.start()
    theirs.close()
    if end is not None:
        end.close()
    return Worker(process, ours, place, LastWords(output), folder, handed=time.monotonic(), _own=_of(process.pid))


@contextmanager
def main_unseen() -> Iterator[None]:
    """In the block the main module is an empty one.

    ``multiprocessing`` has each new process run the main module's file again, which a worker has no use for. A script
    that starts a run at its top level would start one in each worker.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def with_log(outcome: Outcome, words: LastWords) -> Outcome:
    """An outcome with the end of what the worker printed."""
    if not words.lines:
        return outcome
    details = {**outcome.result.get("details", {}), "log": words.lines}
    return replace(outcome, result={**outcome.result, "details": details})


def _of(pid: int | None) -> psutil.Process | None:
    try:
        return None if pid is None else psutil.Process(pid)
    except psutil.Error:
        return None


def _cpu_seconds(process: psutil.Process | None) -> float:
    if process is None:
        return 0.0
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
