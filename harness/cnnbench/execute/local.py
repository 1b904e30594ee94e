"""Runs tasks in worker processes of this machine that live on between tasks.

Several single-threaded trials side by side beat one trial on all cores. Each worker has a pipe of its own: a worker
that dies costs the task it held, is replaced, and the others never notice. A worker's life hangs on its parent's: when
the parent is gone, however it went, the pipe closes and the worker ends itself, in mid-task too.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.execute.cache import clear_scratch
from cnnbench.execute.interface import Epoch, Outcome, Status, Task
from cnnbench.execute.oom import high_water_mib, kills

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.process import BaseProcess

BEGUN = "begun"
"""A worker says so when it takes up a task: its time limit counts from there, not from the worker's own start."""
GRACE_SECONDS = 1.0
"""How long an idle worker may take to end by itself before it is killed."""
LOOK_SECONDS = 1.0
"""How often the memory of busy workers is looked at: what was reached should be known if the system ends one."""


class LocalExecutor:
    """A fixed number of worker processes, started when first needed.

    A task goes to the first place that is free: one that runs alone always to the first of all.

    Args:
        places: number of workers.
        bindings: environment variables that bind a worker to a device of its own, for each device; workers share them
            evenly. None: they see what this process sees.
    """

    def __init__(self, places: int, bindings: Sequence[Mapping[str, str]] = ()) -> None:
        self.places = places
        self._bindings = bindings or ({},)
        # A fork server imports torch once; each worker, and each replacement, starts from there at once.
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            self._context.set_forkserver_preload(["cnnbench.execute.worker"])
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    def submit(self, task: Task) -> None:
        """Hand the task to the idle worker of the first free place, or to a new one there."""
        place = min(set(range(self.places)) - {worker.place for worker in self._busy})
        worker = next((w for w in self._idle if w.place == place and not task.own_process), None)
        if worker is None:
            worker = self._start(place)
        else:
            self._idle.remove(worker)
        worker.take(task)
        self._busy.append(worker)
        with suppress(OSError):  # it died while idle: ``wait`` finds its pipe closed
            worker.pipe.send(task)

    def wait(self) -> Sequence[Outcome | Epoch]:
        """Block until a worker said something, died, or overran its time limit."""
        events: list[Outcome | Epoch] = []
        while not events and self._busy:
            now = time.monotonic()
            timeout = min([LOOK_SECONDS, *(max(0.0, w.deadline - now) for w in self._busy if w.deadline is not None)])
            ready = set(wait([w.pipe for w in self._busy], timeout))
            for worker in list(self._busy):
                worker.look()
                if worker.pipe in ready:
                    events += self._receive(worker)
                if worker in self._busy and worker.deadline is not None and time.monotonic() >= worker.deadline:
                    assert worker.task is not None
                    reason = f"ran longer than its time limit of {worker.task.time_limit:g} s"
                    events += self._lost(worker, "timeout", reason)
        return events

    def close(self) -> None:
        """End all workers: the idle by themselves, the rest at once."""
        for worker in self._idle:
            worker.pipe.close()
        for worker in self._busy:
            worker.kill()
        for worker in self._idle:
            worker.process.join(GRACE_SECONDS)
            worker.kill()
        self._idle, self._busy = [], []

    def _start(self, place: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        binding = dict(self._bindings[place % len(self._bindings)])
        process = self._context.Process(target=_live, args=(theirs, list(sys.path), binding), daemon=False)
        if self._context.get_start_method() == "forkserver":
            _ensure_fork_server()
        process.start()
        theirs.close()
        return _Worker(process, ours, place)

    def _receive(self, worker: _Worker) -> Sequence[Outcome | Epoch]:
        try:
            event: list[Outcome] | Epoch | str = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            return self._died(worker)
        if isinstance(event, str):
            worker.began = time.monotonic()
            return []
        if isinstance(event, Epoch):
            return [event]
        assert worker.task is not None
        self._busy.remove(worker)
        if worker.task.own_process:
            worker.pipe.close()  # it ends by itself
            worker.process.join(GRACE_SECONDS)
            worker.kill()
        else:
            worker.task = None
            self._idle.append(worker)
        return event

    def _died(self, worker: _Worker) -> list[Outcome]:
        code = worker.process.exitcode
        if code == -signal.SIGKILL and kills() > worker.kills_before:
            reached = "" if worker.peak_mib is None else f", last seen at {worker.peak_mib:,.0f} MiB"
            outcomes = self._lost(worker, "oom", f"out of memory: the system ended its worker process{reached}")
            return [replace(one, result={"details": {"peak_mib": worker.peak_mib}}) for one in outcomes]
        return self._lost(worker, "crashed", _cause_of_death(code))

    def _lost(self, worker: _Worker, status: Status, reason: str) -> list[Outcome]:
        """End a worker; the outcomes of all that it was to do."""
        assert worker.task is not None
        worker.kill()
        self._busy.remove(worker)
        seconds = 0.0 if worker.began is None else time.monotonic() - worker.began
        return [Outcome(one.key, status, reason, seconds=seconds) for one in worker.task.members if one.folder]


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection[Any, Any]
    place: int = 0
    task: Task | None = None
    began: float | None = None
    peak_mib: float | None = None
    kills_before: int = 0

    def take(self, task: Task) -> None:
        """Make a task its own."""
        self.task, self.began, self.peak_mib, self.kills_before = task, None, None, kills()

    def look(self) -> None:
        """Note the memory that it has reached."""
        if self.process.pid is not None and (reached := high_water_mib(self.process.pid)) is not None:
            self.peak_mib = reached

    @property
    def deadline(self) -> float | None:
        """When its task is overdue, on the monotonic clock."""
        limit = self.task.time_limit if self.task else None
        return None if limit is None or self.began is None else self.began + limit

    def kill(self) -> None:
        """End the process whatever it is doing, and remove what it had half done."""
        self.pipe.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        if self.task is not None and self.process.pid is not None:
            for one in (member for member in self.task.members if member.folder):
                clear_scratch(Path(one.folder), self.process.pid)


def _live(pipe: Connection[Any, Any], path: list[str], binding: Mapping[str, str]) -> None:
    """A worker process from its start to its end. The parent must not import this: torch takes seconds."""
    os.environ.update(binding)  # before anything looks for devices
    from cnnbench.execute.worker import main

    main(pipe, path)


def _ensure_fork_server() -> None:
    """Start the fork server, if it does not run yet, deaf to Ctrl-C: while it imports it would die with a traceback."""
    from multiprocessing import forkserver, resource_tracker

    resource_tracker.ensure_running()  # first, for its own start lifts the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_MEANING = {
    "SIGKILL": " (out of memory, or killed by hand)",
    "SIGSEGV": " (a fault in compiled code)",
    "SIGBUS": " (a fault in compiled code, or shared memory is full)",
    "SIGABRT": " (compiled code gave up)",
    "SIGILL": " (compiled for another processor)",
}


def _cause_of_death(exitcode: int | None) -> str:
    """What an exit code says, for people."""
    if exitcode is not None and exitcode < 0:
        try:
            name = signal.Signals(-exitcode).name
        except ValueError:
            name = f"signal {-exitcode}"
        return f"its worker process was ended by {name}{_MEANING.get(name, '')}"
    return f"its worker process ended by itself with exit code {exitcode}"


def end_with_parent(pipe: Connection[Any, Any], inbox: Any) -> None:
    """Pass tasks from the pipe to the inbox; when the parent is gone, end this process, in mid-task too."""

    def listen() -> None:
        task: Task | None = None
        while True:
            try:
                task = pipe.recv()
            except (EOFError, OSError):
                for one in (member for member in (task.members if task else ()) if member.folder):
                    clear_scratch(Path(one.folder), os.getpid())
                os._exit(0)
            inbox.put(task)

    threading.Thread(target=listen, name="cnnbench-parent", daemon=True).start()
