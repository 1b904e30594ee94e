"""What a run shows while it runs, all of it on stderr: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Protocol, TextIO

from cnnbench.tally import Tally, stage_text
from cnnbench.text import listed, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.progress import Progress as Bar
    from rich.progress import TaskID

QUIET_SECONDS = 10.0
"""Without a terminal, how long nothing may be said while stages finish or advance."""
REFRESH_SECONDS = 1.0


class Progress(Protocol):
    """What a run tells its viewer, in this order; ``finish`` always comes last, also after an error.

    A run that adds seeds look by look starts and finishes once for each look.
    """

    def start(self, total_by_kind: Mapping[str, int], workers: int) -> None:
        """Stages to come by kind, those with a result on disk included, and how many run at once."""

    def stage_started(self, label: str, kind: str) -> None:
        """A stage was handed to a worker."""

    def stage_advanced(self, label: str, epoch: int, epochs: int) -> None:
        """A running stage has ended ``epoch`` (from 1) of ``epochs``; a stage that trains again begins anew."""

    def stage_finished(self, label: str, kind: str, seconds: float, status: str) -> None:
        """A stage ended; ``seconds`` is 0 for one whose result was on disk (and which never started)."""

    def trial_finished(self, arm: str, seed: int, status: str, reason: str | None, done: int, planned: int) -> None:
        """A trial ended; ``done`` of ``planned`` trials have."""

    def message(self, text: str) -> None:
        """A line for people that belongs to no trial."""

    def finish(self, summary: str = "") -> None:
        """The run ended; may come twice."""


def make_progress(*, quiet: bool = False, stream: TextIO | None = None) -> Progress:
    """The viewer that suits a stream (stderr by default): a bar on a terminal, else plain lines."""
    if quiet:
        return QuietProgress()
    stream = stream or sys.stderr
    return BarProgress(stream) if stream.isatty() else PlainProgress(stream)


class QuietProgress:
    """Says nothing."""

    def start(self, total_by_kind: Mapping[str, int], workers: int) -> None:
        """Nothing to show."""

    def stage_started(self, label: str, kind: str) -> None:
        """Nothing to show."""

    def stage_advanced(self, label: str, epoch: int, epochs: int) -> None:
        """Nothing to show."""

    def stage_finished(self, label: str, kind: str, seconds: float, status: str) -> None:
        """Nothing to show."""

    def trial_finished(self, arm: str, seed: int, status: str, reason: str | None, done: int, planned: int) -> None:
        """Nothing to show."""

    def message(self, text: str) -> None:
        """Nothing to show."""

    def finish(self, summary: str = "") -> None:
        """Nothing to show."""


class PlainProgress:
    """One line for each finished trial, and one now and then while none finishes, also within a training: for logs.

    Args:
        stream: where lines go.
        clock: seconds, only ever growing.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._tally = Tally(clock)
        self._spoke = clock()

    def start(self, total_by_kind: Mapping[str, int], workers: int) -> None:
        """Says how much there is to do."""
        self._tally.start(total_by_kind, workers)
        if self._tally.total:
            self._say(_plan_line(self._tally.total, workers))

    def stage_started(self, label: str, kind: str) -> None:
        """Only noted."""
        self._tally.started(label, kind)

    def stage_advanced(self, label: str, epoch: int, epochs: int) -> None:
        """Says which epoch has ended, if nothing has been said for a while."""
        self._tally.advanced(label, epoch, epochs)
        if self._quiet:
            self._say(stage_text(label, epoch, epochs) + _left(self._tally))

    def stage_finished(self, label: str, kind: str, seconds: float, status: str) -> None:
        """Says where the run stands, if nothing has been said for a while."""
        self._tally.finished(label, kind, seconds, status)
        if self._quiet:
            self._say(f"{self._tally.done}/{self._tally.total} stages{_left(self._tally)}")

    def trial_finished(self, arm: str, seed: int, status: str, reason: str | None, done: int, planned: int) -> None:
        """Says how the trial ended."""
        self._say(_trial_line(arm, seed, status, reason, done, planned) + _left(self._tally))

    def message(self, text: str) -> None:
        """Says it."""
        self._say(printable(text))

    def finish(self, summary: str = "") -> None:
        """Says the summary."""
        if summary:
            self._say(printable(summary))

    @property
    def _quiet(self) -> bool:
        return self._clock() - self._spoke >= QUIET_SECONDS

    def _say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)
        self._spoke = self._clock()


class BarProgress:
    """A bar with stages done, time left and what is running; lines only for trials that did not end well.

    While an exclusive stage is measured nothing is redrawn: not even the clock on the screen may disturb it.

    Args:
        stream: a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tally = Tally(time.monotonic)
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None

    def start(self, total_by_kind: Mapping[str, int], workers: int) -> None:
        """Draws the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        self._tally.start(total_by_kind, workers)
        if not self._tally.total:
            return
        cut = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        self._bar = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("stages{task.fields[left]}", markup=False, table_column=Column(no_wrap=True)),
            TextColumn("{task.description}", markup=False, style="dim", table_column=cut),
            console=Console(file=self._stream),
            auto_refresh=False,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task("", total=self._tally.total, left="")
        self._bar.start()
        self._stop.clear()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()

    def stage_started(self, label: str, kind: str) -> None:
        """Shows what is running."""
        with self._lock:
            self._tally.started(label, kind)
            self._draw()

    def stage_advanced(self, label: str, epoch: int, epochs: int) -> None:
        """Noted for the next time that the bar is drawn: small networks end many epochs a second."""
        with self._lock:
            self._tally.advanced(label, epoch, epochs)

    def stage_finished(self, label: str, kind: str, seconds: float, status: str) -> None:
        """Moves the bar."""
        with self._lock:
            self._tally.finished(label, kind, seconds, status)
            self._draw()

    def trial_finished(self, arm: str, seed: int, status: str, reason: str | None, done: int, planned: int) -> None:
        """A line above the bar for a trial that is not ok."""
        if status != "ok":
            self.message(_trial_line(arm, seed, status, reason, done, planned))

    def message(self, text: str) -> None:
        """A line above the bar."""
        with self._lock:
            if self._bar is None:
                print(printable(text), file=self._stream)
            else:
                self._bar.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def finish(self, summary: str = "") -> None:
        """Removes the bar, so that the table stands alone."""
        self._stop.set()
        if self._bar is not None:
            if self._ticker is not None:
                self._ticker.join()
                self._ticker = None
            self._bar.stop()
            self._bar = None
        if summary:
            print(printable(summary), file=self._stream)

    def _tick(self) -> None:
        while not self._stop.wait(REFRESH_SECONDS):
            with self._lock:
                if not self._tally.alone:
                    self._draw()

    def _draw(self) -> None:
        if self._bar is not None and self._task is not None:
            running = listed(self._tally.running, 2)
            self._bar.update(self._task, completed=self._tally.done, left=_left(self._tally), description=running)
            self._bar.refresh()


def _plan_line(total: int, workers: int) -> str:
    return f"{total} stage{'s' if total > 1 else ''}, {workers} at once" if workers > 1 else f"{total} stages"


def _left(tally: Tally) -> str:
    left = tally.left() if tally.done < tally.total else None
    return f", {left}" if left and (left.complete or left.seconds >= 1) else ""


def _trial_line(arm: str, seed: int, status: str, reason: str | None, done: int, planned: int) -> str:
    why = f" ({reason})" if reason else ""
    return printable(f"[{done}/{planned}] {arm}, seed {seed}: {status}{why}")
