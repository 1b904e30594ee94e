"""Progress as plain lines: for logs, pipes and continuous integration."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TextIO

from cnnbench.tally import Tally
from cnnbench.text import duration, listed, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cnnbench.costs import Costs, Work

LEAST_SILENCE, MOST_SILENCE = 10.0, 300.0
"""Seconds for which nothing may be said, at the start of a run and hours later: a log of days should not drown."""
SHARE_OF_SILENCE = 0.02
"""In between, in seconds per second that the run has taken: about fifty lines for any length of run."""
MEASURING_SILENCE = 60.0
"""At least this while an exclusive stage is measured: little may disturb it."""
TICK_SECONDS = 1.0


class PlainProgress:
    """One line for each finished trial, and one now and then while none finishes: also while nothing happens at all.

    Args:
        stream: where lines go.
        clock: seconds, only ever growing.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._tally = Tally(clock)
        self._began = self._spoke = clock()
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None

    def start(self, work: Sequence[Work], workers: int, costs: Costs, trials: int, planned: int) -> None:
        """Says how much there is to do."""
        self._tally.start(work, workers, costs, trials, planned)
        total = self._tally.total
        if not total:
            return
        at_once = f", {workers} at once" if workers > 1 else ""
        self._say(f"{total} stage{'s' * (total > 1)}{at_once}{left_text(self._tally)}")
        self._stop.clear()
        self._ticker = threading.Thread(target=self._tick, daemon=True, name="cnnbench-progress")
        self._ticker.start()

    def stage_started(self, work: Work) -> None:
        """Only noted."""
        with self._lock:
            self._tally.started(work)

    def stage_placed(self, work: Work, where: str) -> None:
        """Only noted."""
        with self._lock:
            self._tally.placed(work, where)

    def stage_advanced(self, work: Work, epoch: int, epochs: int) -> None:
        """Only noted."""
        with self._lock:
            self._tally.advanced(work, epoch, epochs)

    def stage_finished(self, work: Work) -> None:
        """Only noted."""
        with self._lock:
            self._tally.finished(work)

    def trial_finished(self, arm: str, seed: int, status: str, reason: str | None, done: int, planned: int) -> None:
        """Says how the trial ended."""
        with self._lock:
            self._tally.trial(status, done, planned)
            self._say(trial_text(arm, seed, status, reason, done, planned) + left_text(self._tally))

    def message(self, text: str) -> None:
        """Says it."""
        with self._lock:
            self._say(printable(text))

    def finish(self) -> None:
        """Says no more."""
        self._stop.set()
        if self._ticker is not None:
            self._ticker.join()
            self._ticker = None

    def remind(self) -> None:
        """Say where the run stands and what is running, if nothing has been said for long."""
        with self._lock:
            now, tally = self._clock(), self._tally
            silence = min(max(LEAST_SILENCE, SHARE_OF_SILENCE * (now - self._began)), MOST_SILENCE)
            if now - self._spoke < (max(silence, MEASURING_SILENCE) if tally.alone else silence):
                return
            running = [line_text(*line) for line in tally.lines]
            what = f": {listed(running, 2, '; ')}" if running else ""
            self._say(f"{tally.done}/{tally.total} stages, {tally.counts}{left_text(tally)}{what}")

    def _tick(self) -> None:
        while not self._stop.wait(TICK_SECONDS):
            self.remind()

    def _say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)
        self._spoke = self._clock()


def left_text(tally: Tally) -> str:
    """Time left as the end of a line; empty where nothing is known of it."""
    left = tally.left() if tally.done < tally.total else None
    return f", {left}" if left and (left.complete or left.seconds >= 1) else ""


def line_text(where: str, text: str, seconds: float) -> str:
    """What runs at one place, and for how long: ``worker 1: SiLU, seed 0: train, epoch 2 of 5 (12 s)``."""
    return f"{where}: {text} ({duration(seconds)})" if where else f"{text} ({duration(seconds)})"


def trial_text(arm: str, seed: int, status: str, reason: str | None, done: int, planned: int) -> str:
    """How a trial ended, on one line."""
    why = f" ({reason})" if reason else ""
    return printable(f"[{done}/{planned}] {arm}, seed {seed}: {status}{why}")
