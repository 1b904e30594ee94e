"""Runs tasks in worker processes of this machine that live on between tasks.

Several single-threaded trials side by side beat one trial on all cores. Each worker has a pipe of its own: a worker
that dies costs the task it held, is replaced, and the others never notice. A worker's life hangs on its parent's: when
the parent is gone, however it went, the pipe closes and the worker ends itself, in mid-task too.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.errors import words_of
from cnnbench.execute.cache import clear_scratch
from cnnbench.execute.children import descendants, end_all
from cnnbench.execute.interface import Epoch, Outcome, Placed, Status, Task
from cnnbench.execute.oom import kills, margin_mib
from cnnbench.execute.process import BEGUN, CUT_OFF, LEAVING, LOOK_SECONDS, Loading, Start, Worker, start, with_log
from cnnbench.execute.room import free_mib
from cnnbench.execute.temporary import kept_together
from cnnbench.text import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from multiprocessing.connection import Connection

    from cnnbench.local_plugins import LocalPlugin

    Event = Outcome | Epoch | Placed

FORK_SERVER = "forkserver" in multiprocessing.get_all_start_methods()
GRACE_SECONDS = 1.0
"""How long an idle worker may take to end by itself before it is killed."""
START_SECONDS = 300.0
"""How long a worker may take to come up; most of it is the import of torch and of plugins."""
IDLE_SECONDS = 600.0
"""How long a task may use no CPU time before it is taken for one that never ends."""
FLOOD_SECONDS = 0.005
"""How long a worker whose output fills its pipe waits for it to be read."""


class LocalExecutor:
    """A fixed number of worker processes, started when first needed.

    A task goes to the first place that is free: one that runs alone always to the first of all.

    Args:
        places: number of workers.
        bindings: environment variables that bind a worker to a device of its own, for each device; workers share them
            evenly. None: they see what this process sees.
        free: the machine's free memory in MiB.
        local: plugins that are not installed, which workers load as well.
    """

    def __init__(
        self,
        places: int,
        bindings: Sequence[Mapping[str, str]] = (),
        free: Callable[[], float] = free_mib,
        local: tuple[LocalPlugin, ...] = (),
    ) -> None:
        self.places = places
        self._free = free
        self._margin = margin_mib(free())
        self._bindings = bindings or ({},)
        self._local = local
        self._context: Any = multiprocessing.get_context("forkserver" if FORK_SERVER else "spawn")
        self._idle: list[Worker] = []
        self._busy: list[Worker] = []
        self._without: dict[str, str] = {}
        self._looked, self._every = 0.0, LOOK_SECONDS

    @property
    def per_device(self) -> int:
        """How many tasks may run at once on one device."""
        return -(-self.places // len(self._bindings))

    def submit(self, task: Task) -> None:
        """Hand the task to the idle worker of the first free place, or to a new one there."""
        task = task.absolute()
        place = min(set(range(self.places)) - {worker.place for worker in self._busy})
        worker = next((w for w in self._idle if w.place == place and not task.own_process), None)
        if worker is None:
            worker = self._start(place)
        else:
            self._idle.remove(worker)
        self._busy.append(worker)
        worker.take(task)

    def wait(self) -> Sequence[Event]:
        """Block until a worker said something, died, or overran its time limit."""
        events: list[Event] = []
        while not events and self._busy:
            now = time.monotonic()
            flooded = any(worker.words.full for worker in self._busy)
            timeout = min(
                [
                    FLOOD_SECONDS if flooded else self._every,
                    *(max(0.0, w.deadline - now) for w in self._busy if w.deadline is not None),
                ]
            )
            outputs = [w.words.pipe for w in self._busy if w.words.pipe is not None and not w.words.full]
            ends = {w.process.sentinel for w in self._busy if not w.orphan}
            ready = set(wait([*(w.pipe for w in self._busy), *outputs, *ends], timeout))
            for worker in list(self._busy):
                if worker.words.full or worker.words.pipe in ready:
                    worker.words.read()
                if worker.pipe in ready:
                    events += self._receive(worker)
                elif worker.process.sentinel in ready and worker.ended and not worker.pipe.poll():
                    events += self._died(worker)  # what it forked lives on, and holds its pipe open
            events += self._look()
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

    def _start(self, place: int) -> Worker:
        start_fork_server()
        binding = self._bindings[place % len(self._bindings)]
        return start(self._context, _live, place, binding, dict(self._without), self._local)

    def _receive(self, worker: Worker) -> Sequence[Event]:
        try:
            event: list[Outcome] | Epoch | Loading | str = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(GRACE_SECONDS)
            return self._died(worker)
        except Exception as error:  # noqa: BLE001 - reading a pickle may raise anything
            return self._lost(worker, "crashed", f"what its worker process sent can't be read: {words_of(error)}")
        match event:
            case Epoch():
                return [event]
            case Loading():
                worker.loading = event.plugin
                return []
            case str():
                if event == BEGUN:
                    return self._begun(worker)
                worker.leaving |= event == LEAVING
                return []
        assert worker.task is not None
        worker.words.drain()
        self._busy.remove(worker)
        if worker.task.own_process or worker.leaving or worker.orphan:
            worker.pipe.close()  # it ends by itself
            worker.process.join(GRACE_SECONDS)
            worker.kill()
        else:
            worker.task = None
            self._idle.append(worker)
        return [one if one.status == "ok" else with_log(one, worker.words) for one in event]

    def _begun(self, worker: Worker) -> Sequence[Placed]:
        assert worker.task is not None
        worker.began, worker.loading, worker.up = time.monotonic(), None, True
        device = ", ".join(self._bindings[worker.place % len(self._bindings)].values())
        where = f"worker {worker.place + 1}" + (f" on GPU {device}" if device else "")
        return [Placed(one.key, where) for one in worker.task.members if one.folder]

    def _look(self) -> Sequence[Outcome]:
        """End what is overdue; from time to time, what will not end by itself, and what takes the last memory."""
        now = time.monotonic()
        ended: list[Outcome] = []
        for worker in list(self._busy):
            if worker.deadline is not None and now >= worker.deadline:
                assert worker.task is not None
                ended += self._overdue(worker, f"ran longer than its time limit of {worker.task.time_limit:g} s")
        if now < self._looked + self._every:
            return ended
        self._looked = now
        for worker in list(self._busy):
            if worker.ended and not worker.pipe.poll():
                ended += self._died(worker)  # where what it forked holds what tells of its end open too
                continue
            worker.look()
            if worker.began is None and now >= worker.handed + START_SECONDS:
                ended += self._not_up(worker, f"its worker process did not come up within {duration(START_SECONDS)}")
            elif worker.began is not None and worker.idle_seconds >= IDLE_SECONDS:
                reason = f"used no CPU time for {duration(IDLE_SECONDS)}: it waits for what does not come"
                ended += self._overdue(worker, reason)
        return ended or self._spare_memory()

    def _spare_memory(self) -> Sequence[Outcome]:
        """End the largest worker, if the machine is about to have no memory left and that would help."""
        free = self._free()
        self._every = LOOK_SECONDS / 10 if free < 4 * self._margin else LOOK_SECONDS
        if free >= self._margin or not self._busy:
            return []
        worker = max(self._busy, key=lambda one: one.held_mib)
        held = worker.held_mib
        if held < self._margin:
            return []  # whoever has the memory, it is not this run
        beside = f" beside {len(self._busy) - 1} others" if len(self._busy) > 1 else ""
        reason = (
            f"out of memory: its worker process held {held:,.0f} MiB{beside} when the machine had {free:,.0f} MiB "
            "left, and was ended before the system would"
        )
        worker.say_where()
        return [_with_peak(one, held) for one in self._lost(worker, "oom", reason)]

    def _overdue(self, worker: Worker, reason: str) -> Sequence[Outcome]:
        worker.say_where()
        return self._lost(worker, "timeout", reason)

    def _died(self, worker: Worker) -> Sequence[Outcome]:
        code = worker.process.exitcode
        if code is None:
            return self._lost(worker, "crashed", "its worker process closed its connection to the run, and was ended")
        worker.words.drain()
        if code == _KILLED and kills() > worker.kills_before:
            reached = "" if worker.peak_mib is None else f", last seen at {worker.peak_mib:,.0f} MiB"
            outcomes = self._lost(worker, "oom", f"out of memory: the system ended its worker process{reached}")
            return [_with_peak(one, worker.peak_mib) for one in outcomes]
        cause = _ORPHANED if worker.orphan else cause_of_death(code)
        if worker.began is None:
            return self._again(worker) if worker.up else self._not_up(worker, cause)
        return self._lost(worker, "crashed", cause)

    def _not_up(self, worker: Worker, reason: str) -> Sequence[Outcome]:
        """A worker that did not come up: another takes its task, without the plugin that it could not import."""
        plugin = worker.loading
        if plugin is None or plugin in self._without:
            return self._lost(worker, "crashed", reason)
        self._without[plugin] = f"plugin {plugin!r} is left out, for while a worker imported it {reason}"
        return self._again(worker)

    def _again(self, worker: Worker) -> Sequence[Outcome]:
        """Hand the task of a worker that never began it to a new one."""
        assert worker.task is not None
        task = worker.task
        self._lost(worker, "crashed", "")
        again = self._start(worker.place)
        self._busy.append(again)
        again.take(task)
        return []

    def _lost(self, worker: Worker, status: Status, reason: str) -> list[Outcome]:
        """End a worker; the outcomes of all that it was to do."""
        outcomes = worker.outcomes(status, reason)
        worker.kill()
        self._busy.remove(worker)
        return outcomes


def _with_peak(outcome: Outcome, peak_mib: float | None) -> Outcome:
    details = {**outcome.result.get("details", {}), "peak_mib": peak_mib}
    return replace(outcome, result={**outcome.result, "details": details})


def _live(pipe: Connection[Any, Any], begin: Start, output: Connection[Any, Any] | None) -> None:
    """A worker process from its start to its end. The parent must not import this: torch takes seconds."""
    os.environ.update(begin.binding)  # before anything looks for devices
    from cnnbench.execute.worker import main

    main(pipe, begin, output)


def start_fork_server() -> None:
    """Start what workers are forked from, if it does not run yet, where the system has such a thing; returns at once.

    It imports torch once, which takes seconds: each worker, and each replacement, starts from there at once. It is deaf
    to Ctrl-C: while it imports it would die with a traceback.
    """
    if not FORK_SERVER:
        return
    from multiprocessing import forkserver, resource_tracker

    multiprocessing.get_context("forkserver").set_forkserver_preload(["cnnbench.execute.worker"])
    resource_tracker.ensure_running()  # first, for its own start lifts the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with kept_together():
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_ORPHANED = "its worker process ended, how is not known: a technique had ended the process that it was forked from"
_KILLED = -int(getattr(signal, "SIGKILL", 9))  # Windows has none
_MEANING = {
    "SIGKILL": " (out of memory, or killed by hand)",
    "SIGSEGV": " (a fault in compiled code)",
    "SIGBUS": " (a fault in compiled code, or shared memory is full)",
    "SIGABRT": " (compiled code gave up)",
    "SIGILL": " (compiled for another processor)",
}


def cause_of_death(exitcode: int | None, process: str = "its worker process") -> str:
    """What an exit code says of a process, for people."""
    if exitcode is not None and exitcode < 0:
        try:
            name = signal.Signals(-exitcode).name
        except ValueError:
            name = f"signal {-exitcode}"
        return f"{process} was ended by {name}{_MEANING.get(name, '')}"
    if exitcode == CUT_OFF:
        return f"{process} lost its connection to the run: a technique closed file descriptors that are not its own"
    return f"{process} ended by itself with exit code {exitcode} (os._exit, or exit in compiled code)"


def end_with_parent(pipe: Connection[Any, Any], inbox: Any, folder: str) -> None:
    """Pass tasks from the pipe to the inbox; when the parent is gone, end this process, in mid-task too."""

    def listen() -> None:
        task: Task | None = None
        while True:
            try:
                task = pipe.recv()
            except (EOFError, OSError):
                end_all(descendants(os.getpid()))
                for one in (member for member in (task.members if task else ()) if member.folder):
                    clear_scratch(Path(one.folder), os.getpid())
                shutil.rmtree(folder, ignore_errors=True)
                os._exit(CUT_OFF)
            inbox.put(task)

    threading.Thread(target=listen, name="cnnbench-parent", daemon=True).start()
