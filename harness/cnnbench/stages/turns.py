"""A model being timed: warm-up until it is steady, then turns of some samples each.

A sample is the wall time of one call, from a synchronized device to a synchronized device. Calls too short for the
clock are timed several at a time (``iterations``) and the sample is their mean; percentiles then are of such means.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from cnnbench.stages.subject import make_batches
from cnnbench.stats.rounds import turn_medians

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from cnnbench.devices import Device
    from cnnbench.stages.subject import Subject

    Clock = Callable[[], int]

SHORTEST_NS = 50_000
"""A sample lasts at least this long, some thousand times what reading the clock takes."""
TURN_NS = 5_000_000
MOST_A_TURN = 10
"""A turn lasts about 5 ms: its first call, which does not count, costs little then, and a session still has many."""
WARMUP_WINDOW = 5
WARMUP_STEADY = 0.05


class Timed:
    """A model being timed for one batch size.

    Args:
        subject: the model and its inputs.
        size: images a call.
        device: where it computes.
        clock: nanoseconds.

    Attributes:
        size: images a call.
        warmup: calls of the warm-up.
        steady: whether the warm-up ended because the model was steady, and not because its time was up.
        iterations: calls a sample.
        per_round: samples a turn.
    """

    def __init__(self, subject: Subject, size: int, device: Device, clock: Clock) -> None:
        self._call = subject.call
        self._inputs = subject.inputs
        self._batches: Sequence[torch.Tensor] = ()
        self._device = device
        self._clock = clock
        self._calls = 0
        self._rounds: list[list[int]] = []
        self.size = size
        self.warmup = 0
        self.steady = False
        self.iterations = 1
        self.per_round = 1

    def warm_up(self, budget: int, settled: int) -> None:
        """Call until the clock shows ``settled`` and the model is steady, or the budget is used; then plan the turns.

        Steady is when the median of the last five calls is within 5 % of that of the five before.

        Args:
            budget: nanoseconds, which count from ``settled`` where that is still to come.
            settled: when the device has reached its clock.
        """
        self._batches = make_batches(self._inputs.to(self._device.torch), self.size)
        begun = max(self._clock(), settled)
        times: list[int] = []
        while True:
            times.append(self._time(1))
            now = self._clock()
            self.steady = _steady(times)
            if (self.steady and now >= settled) or (len(times) > 1 and now - begun >= budget):
                break
        self.warmup = len(times)
        quickest = max(1, min(times[-WARMUP_WINDOW:]))  # a disturbed call does not tell how long calls will last
        self.iterations = math.ceil(SHORTEST_NS / quickest)
        self.per_round = min(MOST_A_TURN, math.ceil(TURN_NS / (quickest * self.iterations)))

    def turn(self) -> None:
        """One round's samples, after a call that is not recorded."""
        self._time(1)
        self._rounds.append([self._time(self.iterations) for _ in range(self.per_round)])

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """Milliseconds a call, in the order taken."""
        return tuple(round(ns / self.iterations / 1e6, 7) for turn in self._rounds for ns in turn)

    @property
    def medians_ms(self) -> tuple[float, ...]:
        """Median of each turn, in ms."""
        return tuple(round(float(median), 7) for median in turn_medians(self.samples_ms, self.per_round))

    def _time(self, iterations: int) -> int:
        """Nanoseconds for some calls; they take the batches in turn."""
        chosen = [self._batches[(self._calls + i) % len(self._batches)] for i in range(iterations)]
        self._calls += iterations
        self._device.synchronize()
        start = self._clock()
        # Outputs are held until the clock has stopped: freeing them is not the model's work, and a lazy device would
        # skip work whose output nobody holds.
        outputs = [self._call(batch) for batch in chosen]
        self._device.synchronize()
        elapsed = self._clock() - start
        del outputs
        return elapsed


def _steady(times: Sequence[int]) -> bool:
    """Whether the last calls took as long as those before them."""
    if len(times) < 2 * WARMUP_WINDOW:
        return False
    previous = statistics.median(times[-2 * WARMUP_WINDOW : -WARMUP_WINDOW])
    return abs(statistics.median(times[-WARMUP_WINDOW:]) - previous) <= WARMUP_STEADY * previous
