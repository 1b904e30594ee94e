"""Progress on a terminal: a bar, and a line for each of the stages that have run longest."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TextIO

from rich.cells import cell_len

from cnnbench.progress_lines import left_text, line_text, trial_text
from cnnbench.tally import Tally
from cnnbench.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.live import Live

    from cnnbench.costs import Costs, Work

REFRESH_SECONDS = 0.5
MEASURING_SECONDS = 60.0
"""How often the screen changes while an exclusive stage is measured: hardly anything may disturb it."""
MOST_LINES = 8
"""Running stages that have a line of their own."""
BAR_WIDTH = 20


class BarProgress:
    """A bar with stages and trials done and time left, and below it what is running where.

    Lines stay only for trials that did not end well.

    Args:
        stream: a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tally = Tally(time.monotonic)
        self._live: Live | None = None
        self._drawn = 0.0
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None

    def start(self, work: Sequence[Work], workers: int, costs: Costs, trials: int, planned: int) -> None:
        """Draws the bar."""
        from rich.console import Console
        from rich.live import Live

        self._tally.start(work, workers, costs, trials, planned)
        if not self._tally.total:
            return
        self._live = Live(console=Console(file=self._stream), auto_refresh=False, transient=True)
        self._live.start()
        self._draw()
        self._stop.clear()
        self._ticker = threading.Thread(target=self._tick, daemon=True, name="cnnbench-progress")
        self._ticker.start()

    def stage_started(self, work: Work) -> None:
        """Shows what is running before it runs, if it is to run undisturbed; else at the next time."""
        with self._lock:
            self._tally.started(work)
            if work.exclusive:
                self._draw()

    def stage_placed(self, work: Work, where: str) -> None:
        """Noted for the next time that the bar is drawn."""
        with self._lock:
            self._tally.placed(work, where)

    def stage_advanced(self, work: Work, epoch: int, epochs: int) -> None:
        """Noted for the next time that the bar is drawn: small networks end many epochs a second."""
        with self._lock:
            self._tally.advanced(work, epoch, epochs)

    def stage_finished(self, work: Work) -> None:
        """Noted for the next time that the bar is drawn."""
        with self._lock:
            self._tally.finished(work)

    def trial_finished(self, arm: str, seed: int, status: str, reason: str | None, done: int, planned: int) -> None:
        """A line above the bar for a trial that is not ok."""
        with self._lock:
            self._tally.trial(status, done, planned)
            if status != "ok":
                self.message(trial_text(arm, seed, status, reason, done, planned))

    def message(self, text: str) -> None:
        """A line above the bar."""
        with self._lock:
            if self._live is None:
                print(printable(text), file=self._stream)
            else:
                self._live.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def finish(self) -> None:
        """Removes the bar, so that the table stands alone."""
        self._stop.set()
        if self._ticker is not None:
            self._ticker.join()
            self._ticker = None
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _tick(self) -> None:
        while not self._stop.wait(REFRESH_SECONDS):
            with self._lock:
                if not self._tally.alone or time.monotonic() - self._drawn >= MEASURING_SECONDS:
                    self._draw()

    def _draw(self) -> None:
        if self._live is None:
            return
        from rich.console import Group
        from rich.text import Text

        console = self._live.console
        lines = screen(self._tally, console.width, console.height, plain=console.options.ascii_only)
        first = Text(lines[0], no_wrap=True, overflow="crop")
        first.highlight_regex("━+", "green")
        rest = [Text(line, style="dim", no_wrap=True, overflow="crop") for line in lines[1:]]
        self._live.update(Group(first, *rest), refresh=True)
        self._drawn = time.monotonic()


def screen(tally: Tally, width: int, height: int, *, plain: bool = False) -> list[str]:
    """What the terminal shows: the bar with counts and time left, then the stages that have run longest.

    Args:
        tally: where the run stands.
        width: cells of the terminal. Lines leave room for the ``^C`` that it echoes: one that wraps would stay.
        height: lines of the terminal.
        plain: with ASCII alone, but for names.
    """
    room = max(width - 3, 1)
    counts = f"{tally.done}/{tally.total} stages, {tally.counts}{left_text(tally)}"
    cells = min(BAR_WIDTH, room - cell_len(counts) - 1)
    filled = round(cells * tally.done / tally.total) if tally.total and cells > 0 else 0
    bar = ("#" if plain else "━") * filled + ("-" if plain else "╌") * (cells - filled)
    lines = [f"{bar} {counts}" if cells > 0 else counts]
    running = [line_text(*line) for line in tally.lines]
    most = max(1, min(MOST_LINES, height - 4))
    shown = running if len(running) <= most else running[: max(1, most - 1)]
    lines += [f"  {line}" for line in shown]
    if len(shown) < len(running):
        lines.append(f"  and {len(running) - len(shown)} more")
    return [_shortened(line, room, "..." if plain else "…") for line in lines]


def _shortened(line: str, room: int, dots: str) -> str:
    """A line of at most so many cells; what is too much goes from the middle, for the epoch stands at the end."""
    if cell_len(line) <= room:
        return line
    back = (room - cell_len(dots)) // 2
    front = room - cell_len(dots) - back
    if back <= 0:
        return _first(line, room)
    return _first(line, front) + dots + _first(line[::-1], back)[::-1]


def _first(text: str, room: int) -> str:
    """As many of the first characters as there are cells for."""
    used = 0
    for number, character in enumerate(text):
        used += cell_len(character)
        if used > room:
            return text[:number]
    return text
