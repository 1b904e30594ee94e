"""What a run shows while it runs, all of it on stderr: a bar on a terminal, plain lines elsewhere, or nothing.

Time left is estimated from finished stages of the same kind, so that cheap and dear stages are not mixed up.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

from cnnbench.plan import EXCLUSIVE
from cnnbench.text import duration, listed, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from rich.progress import Progress as Bar
    from rich.progress import TaskID

QUIET_SECONDS = 30.0
"""Without a terminal, how long nothing may be said while stages finish."""
REFRESH_SECONDS = 1.0


class Progress(Protocol):
    """What a run tells its viewer, in this order; ``finish`` always comes last, also after an error."""

    def start(self, total_by_kind: Mapping[str, int], workers: int) -> None:
        """Stages to come by kind, those with a result on disk included, and how many run at once."""

    def stage_started(self, label: str, kind: str) -> None:
        """A stage was handed to a worker."""

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


@dataclass(frozen=True)
class TimeLeft:
    """An estimate of the time until a run ends.

    Attributes:
        seconds: for the stages of kinds that have finished examples.
        complete: every kind still to come has one; else the true time is longer.
    """

    seconds: float
    complete: bool

    def __str__(self) -> str:
        return f"{'about' if self.complete else 'more than'} {duration(self.seconds)} left"


def time_left(
    seconds: Mapping[str, Sequence[float]],
    waiting: Mapping[str, int],
    running: Sequence[tuple[str, float]],
    workers: int,
    exclusive: Collection[str] = EXCLUSIVE,
) -> TimeLeft | None:
    """Time until all stages are done.

    ``max(work / workers, longest) + alone``: ``work`` sums the mean time of its kind over each stage that is waiting
    and what is left of it over each that is running, ``longest`` is the largest of these, and ``alone`` is the same sum
    for exclusive kinds, which run one by one after the others.

    Args:
        seconds: wall times of finished stages by kind.
        waiting: number of stages not started by kind.
        running: kind and seconds so far of each running stage.
        workers: stages at once.
        exclusive: kinds that run alone.

    Returns:
        None while no kind that is left has a finished example.
    """
    mean = {kind: sum(times) / len(times) for kind, times in seconds.items() if times}
    left = [(kind, mean[kind]) for kind, count in waiting.items() if kind in mean for _ in range(count)]
    left += [(kind, max(mean[kind] - elapsed, 0.0)) for kind, elapsed in running if kind in mean]
    needed = {kind for kind, count in waiting.items() if count} | {kind for kind, _ in running}
    if needed and not needed & mean.keys():
        return None
    shared = [time for kind, time in left if kind not in exclusive]
    alone = sum(time for kind, time in left if kind in exclusive)
    return TimeLeft(max(sum(shared) / workers, max(shared, default=0.0)) + alone, needed <= mean.keys())


class QuietProgress:
    """Says nothing."""

    def start(self, total_by_kind: Mapping[str, int], workers: int) -> None:
        """Nothing to show."""

    def stage_started(self, label: str, kind: str) -> None:
        """Nothing to show."""

    def stage_finished(self, label: str, kind: str, seconds: float, status: str) -> None:
        """Nothing to show."""

    def trial_finished(self, arm: str, seed: int, status: str, reason: str | None, done: int, planned: int) -> None:
        """Nothing to show."""

    def message(self, text: str) -> None:
        """Nothing to show."""

    def finish(self, summary: str = "") -> None:
        """Nothing to show."""


class Tally:
    """Where a run stands: stages done, running and to come.

    Args:
        clock: seconds, only ever growing.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: Counter[str] = Counter()
        self._running: dict[str, tuple[str, float]] = {}
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._workers = 1
        self.total = 0
        self.done = 0

    def start(self, total_by_kind: Mapping[str, int], workers: int) -> None:
        """Begin counting."""
        self._waiting = Counter(total_by_kind)
        self._workers = max(workers, 1)
        self.total = sum(total_by_kind.values())

    def started(self, label: str, kind: str) -> None:
        """A stage runs."""
        self._waiting[kind] -= 1
        self._running[label] = (kind, self._clock())

    def finished(self, label: str, kind: str, seconds: float, status: str) -> None:
        """A stage ended, or its result was on disk; only time that was spent on success tells of times to come."""
        if self._running.pop(label, None) is None:
            self._waiting[kind] -= 1
        elif status == "ok":
            self._seconds[kind].append(seconds)
        self.done += 1

    @property
    def running(self) -> list[str]:
        """Labels of running stages, the oldest first."""
        return list(self._running)

    @property
    def alone(self) -> bool:
        """Whether an exclusive stage is running."""
        return any(kind in EXCLUSIVE for kind, _ in self._running.values())

    def left(self) -> TimeLeft | None:
        """Estimated time to the end."""
        now = self._clock()
        running = [(kind, now - since) for kind, since in self._running.values()]
        return time_left(self._seconds, +self._waiting, running, self._workers)


class PlainProgress:
    """One line for each finished trial, and one now and then while none finishes: for logs.

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

    def stage_finished(self, label: str, kind: str, seconds: float, status: str) -> None:
        """Says where the run stands, if nothing has been said for a while."""
        self._tally.finished(label, kind, seconds, status)
        if self._clock() - self._spoke >= QUIET_SECONDS:
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
        self._ticker = threading.Thread(target=self._tick, daemon=True)

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
        self._ticker.start()

    def stage_started(self, label: str, kind: str) -> None:
        """Shows what is running."""
        with self._lock:
            self._tally.started(label, kind)
            self._draw()

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
            if self._ticker.is_alive():
                self._ticker.join()
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
            running = listed((printable(label) for label in self._tally.running), 2)
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
