"""Latency of inference: raw samples of several models, taken in turns until all medians are known well enough.

For each batch size every model is first called until it is steady. Then come rounds. In each of them every model has
one turn of some samples, in an order drawn anew, so that none always follows the same other. A turn opens with a call
that is not recorded: it finds the caches as the model before left them, and that model's threads still waiting for
work. What slows the machine down for a while falls on all models alike, and cancels in the ratio of two models within a
round.
"""

from __future__ import annotations

import gc
import math
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from cnnbench.environment import usable_cores
from cnnbench.stages.pinning import bound_to_cores
from cnnbench.stages.threads import intra_op_threads
from cnnbench.stages.timings import LatencyFigures, LatencyResult, Stopped
from cnnbench.stages.turns import Timed

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping

    from cnnbench.devices import Device
    from cnnbench.stages.subject import Subject
    from cnnbench.types import LatencyOptions

    Clock = Callable[[], int]

SETTLING_NS = 1_000_000_000
"""An idle GPU runs at a low clock, and takes up to a second of work to reach the one that it keeps."""
FIRST_LOOK = 10
GROWTH = 1.25
FEWEST_ROUNDS = 3
MOST_SAMPLES = 4000


def measure_latency(
    subjects: Mapping[str, Subject],
    device: Device,
    options: LatencyOptions,
    references: Mapping[str, str],
    *,
    clock: Clock = time.perf_counter_ns,
    shuffle: random.Random,
) -> dict[str, LatencyFigures | Exception]:
    """Time models in interleaved rounds, for one batch size after the other.

    Sampling ends when the 95 % interval of every median and of every ratio lies within ``options.precision`` of it.
    This is looked at after 10 rounds and then whenever there are a quarter more, so that looking often does not itself
    end it. Sampling also ends when ``options.max_seconds`` for each model have passed, warm-up included but not the
    second that an idle GPU takes to settle, or when a model has 4000 samples; there are three rounds at least. All
    models stay in until then, so that rounds stay paired.

    Args:
        subjects: the models, by name.
        device: where they compute; inputs are moved there before any timing.
        options: batch sizes, precision, time and threads.
        references: name of the subject that a subject is compared with, for those that are.
        clock: nanoseconds.
        shuffle: draws the order of each round.

    Returns:
        By name, in the order of ``subjects``: the figures, or what the call raised, which ended its part in the rounds.
    """
    failed: dict[str, Exception] = {}
    results: dict[str, list[LatencyResult]] = {name: [] for name in subjects}
    count = options.threads or usable_cores()
    binding = bound_to_cores(count) if device.kind == "cpu" else nullcontext()
    with binding as cpus, intra_op_threads(count) as threads, device.inference(), _no_collector():
        settled = clock() + SETTLING_NS if device.kind in {"cuda", "mps"} else 0
        for size in options.batch_sizes:
            gc.collect()
            rounds = _Rounds(
                {name: Timed(subject, size, device, clock) for name, subject in subjects.items() if name not in failed},
                references,
                options.precision,
            )
            limit = int(options.max_seconds * 1e9)
            deadline = max(clock(), settled) + limit * len(rounds.timed)
            rounds.warm_up(limit // 2, settled)
            for name, result in rounds.sample(clock, deadline, shuffle).items():
                results[name].append(replace(result, threads=threads, cpus=cpus))
            failed |= rounds.failed
    return {name: failed[name] if name in failed else LatencyFigures(tuple(results[name])) for name in subjects}


class _Rounds:
    """Models timed in turns for one batch size.

    Attributes:
        timed: those still in, by name.
        failed: what the others raised.
    """

    def __init__(self, timed: dict[str, Timed], references: Mapping[str, str], precision: float) -> None:
        self.timed = timed
        self.failed: dict[str, Exception] = {}
        self._references = references
        self._precision = precision

    def warm_up(self, budget: int, settled: int) -> None:
        for name in list(self.timed):
            self._run(name, lambda timed: timed.warm_up(budget, settled))

    def sample(self, clock: Clock, deadline: int, shuffle: random.Random) -> dict[str, LatencyResult]:
        """Rounds until all is known well enough, the time is up or there are too many samples."""
        taken, look = 0, FIRST_LOOK
        stopped: Stopped = "precision"
        while self.timed:
            for name in shuffle.sample(list(self.timed), len(self.timed)):
                self._run(name, Timed.turn)
            taken += 1
            if taken >= look:
                look = math.ceil(look * GROWTH)
                if all(result.within(self._precision) for result in self._results(stopped).values()):
                    break
            if taken >= FEWEST_ROUNDS and clock() >= deadline:
                stopped = "time"
                break
            if any(taken * timed.per_round >= MOST_SAMPLES for timed in self.timed.values()):
                stopped = "count"
                break
        results = self._results(stopped)
        return {n: replace(r, stopped="precision") if r.within(self._precision) else r for n, r in results.items()}

    def _results(self, stopped: Stopped) -> dict[str, LatencyResult]:
        medians = {name: timed.medians_ms for name, timed in self.timed.items()}
        return {
            name: LatencyResult(
                batch_size=timed.size,
                samples_ms=timed.samples_ms,
                per_round=timed.per_round,
                iterations=timed.iterations,
                warmup=timed.warmup,
                steady=timed.steady,
                stopped=stopped,
                reference_ms=medians.get(self._references.get(name, "")),
            )
            for name, timed in self.timed.items()
        }

    def _run(self, name: str, step: Callable[[Timed], None]) -> None:
        try:
            step(self.timed[name])
        except Exception as error:  # noqa: BLE001 - whatever a model raises is its own result; the others go on
            self.failed[name] = error
            del self.timed[name]


@contextmanager
def _no_collector() -> Iterator[None]:
    """Collect no garbage within a sample."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
