"""Runs tasks in this very process: for debugging, profiling and a single place.

A time limit is kept by an alarm where the system has one and this is the main thread. What a task leaves changed in the
process is found and put back. Nothing protects the run from a technique that ends the process; the local executor does.
"""

from __future__ import annotations

import signal
import tempfile
import threading
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.execute.guard import Guard
from cnnbench.execute.interface import Epoch, Outcome, Task
from cnnbench.execute.perform import lost, perform
from cnnbench.execute.temporary import kept_together
from cnnbench.interrupt import ctrl_c
from cnnbench.stages.bench import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

    from cnnbench.plugins import PluginHost


AGAIN_SECONDS = 1.0
"""How long after the alarm it rings again, for a technique that catches whatever is raised."""


class InlineExecutor:
    """One task at a time, here."""

    places = 1

    def __init__(self, host: PluginHost) -> None:
        self._bench = Bench(host.registry)
        self._events: list[Outcome | Epoch] = []

    def submit(self, task: Task) -> None:
        """Run the task to its end."""
        began = time.monotonic()

        def tell(progress: Mapping[str, Any], key: str = task.key) -> None:
            self._events.append(Epoch(key, progress))

        try:
            with (
                kept_together(),
                _scratch() as folder,
                ctrl_c() as pressed,
                _alarm(task.time_limit, guard := Guard(Path(folder))),
            ):
                try:
                    outcomes = perform(task.absolute(), self._bench, tell, guard=guard)
                except KeyboardInterrupt as error:
                    if pressed():
                        raise
                    outcomes = [lost(one, error, time.monotonic() - began) for one in task.members if one.folder]
            self._events += outcomes
        except _OutOfTime:
            reason = f"ran longer than its time limit of {task.time_limit:g} s"
            trace, seconds = traceback.format_exc(), time.monotonic() - began
            self._events += [
                Outcome(one.key, "timeout", reason, trace, seconds=seconds) for one in task.members if one.folder
            ]

    def wait(self) -> Sequence[Outcome | Epoch]:
        """What happened in ``submit``."""
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Let go of the energy meter."""
        self._bench.close()


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """A working directory for one task."""
    return tempfile.TemporaryDirectory(prefix="task-", ignore_cleanup_errors=True)


class _OutOfTime(BaseException):
    """The alarm rang. Not an ``Exception``, so that a technique which catches all of those can't swallow it."""


@contextmanager
def _alarm(seconds: float | None, guard: Guard) -> Iterator[None]:
    """Raise ``_OutOfTime`` in what the guard watches after ``seconds``, again and again where it is swallowed.

    An alarm that was set before goes on afterwards.
    """
    if seconds is None or not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        if guard.watching:
            raise _OutOfTime

    began = time.monotonic()
    before = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 1e-3), interval)
