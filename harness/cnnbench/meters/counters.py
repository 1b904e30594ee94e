"""Hardware counters of energy, read over a task: they wrap around, start anew, stand still and vanish."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cnnbench.meters.base import Scope

MOST_WATTS = 1000.0
"""What one processor package may draw at most. A counter that seems to have wrapped around for more was reset."""
CHANGES = 5
"""Updates of a counter that its interval is the mean of."""
PATIENCE = 2.0
"""Seconds after which a counter that has not changed is taken to stand still."""


@dataclass(frozen=True)
class Counter:
    """One hardware counter.

    Attributes:
        component: the part of the machine that it counts for: ``cpu``, ``gpu``, ``ram`` or ``machine``.
        label: its name, for people.
        source: ``RAPL`` or ``NVML``.
        scope: whose work it holds.
        read: joules since some moment. Raises OSError or ValueError where it can't be read.
        span: it starts over at so many joules; None where it does not, or that is not known.
    """

    component: str
    label: str
    source: str
    scope: Scope
    read: Callable[[], float]
    span: float | None = None


class CounterFault(Exception):  # noqa: N818 - a fault of the counter's, not of the program's
    """A counter can't be relied on for the present task.

    Attributes:
        counter: which.
        lasting: it is of no use for later tasks either.
    """

    def __init__(self, counter: Counter, why: str, *, lasting: bool) -> None:
        super().__init__(f"{counter.source}'s counter {counter.label} {why}")
        self.counter = counter
        self.lasting = lasting


def update_interval(counter: Counter, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds between two updates of a counter, by polling it; the polling keeps a core busy meanwhile.

    Raises:
        CounterFault: it can't be read, or stands still.
    """
    began = clock()
    value = _read(counter)
    changed: list[float] = []
    while len(changed) <= CHANGES and clock() - began < PATIENCE:
        if (now := _read(counter)) != value:
            value = now
            changed.append(clock())
    if not changed:
        raise CounterFault(counter, "stands still", lasting=True)
    if len(changed) == 1:
        return PATIENCE
    # From the first change on: polling began anywhere between two updates.
    return (changed[-1] - changed[0]) / (len(changed) - 1)


class Watch:
    """Counters over one task.

    Counters that wrap around are also read every ``poll_seconds`` by a thread, or a long task would miss a wrap.

    Args:
        counters: read at the start, now, and at the end.
        clock: seconds.
        poll_seconds: must be short against the time in which a counter wraps around (65 kJ at 500 W: two minutes).

    Raises:
        CounterFault: one can't be read.
    """

    def __init__(
        self,
        counters: Sequence[Counter],
        clock: Callable[[], float] = time.perf_counter,
        poll_seconds: float = 10.0,
    ) -> None:
        self._clock = clock
        self._tallies = [_Tally(counter, clock) for counter in counters]
        self._poll_seconds = poll_seconds
        self._over = threading.Event()
        self._fault: CounterFault | None = None
        self._thread: threading.Thread | None = None
        if any(counter.span is not None for counter in counters):
            self._thread = threading.Thread(target=self._poll, name="cnnbench-counters", daemon=True)
            self._thread.start()

    def stop(self, still_after: float) -> list[float]:
        """Joules of each counter since the start.

        Args:
            still_after: seconds after which a counter must have moved.

        Raises:
            CounterFault: one vanished, was reset, or stood still.
        """
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._fault is not None:
            raise self._fault
        for tally in self._tallies:
            tally.update()
            if tally.joules == 0 and tally.seconds >= still_after:
                raise CounterFault(tally.counter, "stands still", lasting=True)
        return [tally.joules for tally in self._tallies]

    def _poll(self) -> None:
        while not self._over.wait(self._poll_seconds):
            try:
                for tally in self._tallies:
                    tally.update()
            except CounterFault as fault:
                self._fault = fault
                return


class _Tally:
    """What one counter has counted since this was made."""

    def __init__(self, counter: Counter, clock: Callable[[], float]) -> None:
        self.counter = counter
        self.joules = 0.0
        self._clock = clock
        self._last = _read(counter)
        self._began = self._at = clock()

    @property
    def seconds(self) -> float:
        """From the start to the last update."""
        return self._at - self._began

    def update(self) -> None:
        value, now = _read(self.counter), self._clock()
        step = value - self._last
        if step < 0:
            step += self.counter.span or 0.0
            # A tenth of a second more, since counters change by leaps.
            if not 0 <= step <= MOST_WATTS * (now - self._at + 0.1):
                why = f"fell from {self._last:.1f} J to {value:.1f} J"
                raise CounterFault(self.counter, why, lasting=False)
        self.joules += step
        self._last, self._at = value, now


def _read(counter: Counter) -> float:
    try:
        return counter.read()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise CounterFault(counter, f"can't be read ({why})", lasting=True) from error
