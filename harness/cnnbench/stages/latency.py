"""Latency of inference: raw samples, taken until the median is known well enough.

A sample is the wall time of one call, from a synchronized device to a synchronized device. Calls too short for the
clock are timed several at a time (``iterations``) and the sample is their mean; percentiles then are of such means.
Before sampling the model is called until it is steady: until the median of the last five calls is within 5 % of that of
the five before, or half of the time is used.

The 95 % interval of the median is made of two order statistics (ranks from the binomial distribution), assumes no
distribution, and is looked at after 30 samples and then whenever there are a quarter more, so that looking often does
not itself end the sampling early. It does assume that samples are independent, which a drifting machine breaks: drift
is met by taking arms in turn, not by this interval.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from cnnbench.environment import usable_cores
from cnnbench.stages.subject import make_batches
from cnnbench.stages.threads import intra_op_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cnnbench.devices import Device
    from cnnbench.types import LatencyOptions

    Call = Callable[[torch.Tensor], torch.Tensor]
    Clock = Callable[[], int]

SHORTEST_NS = 50_000
"""A sample lasts at least this long, some thousand times what reading the clock takes."""
FIRST_LOOK = 30
GROWTH = 1.25
MOST_SAMPLES = 4000
FEWEST_SAMPLES = 3
WARMUP_WINDOW = 5
WARMUP_STEADY = 0.05

Stopped = Literal["precision", "time", "count"]


@dataclass(frozen=True)
class LatencyResult:
    """The samples for one batch size.

    Attributes:
        batch_size: images a call.
        samples_ms: wall time of a call in ms, in the order taken.
        iterations: calls a sample.
        warmup: calls before the first sample.
        stopped: ``precision`` (the median's interval is narrow enough), ``time`` (it is up), or ``count`` (4000
            samples were not enough).
        threads: intra-op threads on CPU.
    """

    batch_size: int
    samples_ms: tuple[float, ...]
    iterations: int
    warmup: int
    stopped: Stopped
    threads: int

    @property
    def median_ms(self) -> float:
        """Median of a call, in ms."""
        return statistics.median(self.samples_ms)

    @property
    def interval_ms(self) -> tuple[float, float] | None:
        """95 % interval of the median, in ms; None below 8 samples."""
        return median_interval(self.samples_ms)

    @property
    def throughput(self) -> float:
        """Images a second at the median."""
        return self.batch_size / self.median_ms * 1000

    def percentile(self, percent: float) -> float:
        """A percentile in ms, interpolated linearly."""
        return float(np.percentile(self.samples_ms, percent))

    @property
    def metrics(self) -> dict[str, float]:
        """Scalars, keyed as in ``cnnbench.quantities``."""
        n = self.batch_size
        return {
            f"latency_b{n}_ms": self.median_ms,
            f"latency_b{n}_p95_ms": self.percentile(95),
            f"latency_b{n}_p99_ms": self.percentile(99),
            f"throughput_b{n}": self.throughput,
        }

    @property
    def details(self) -> dict[str, Any]:
        """What a record keeps: the samples, and how they were taken."""
        return {
            "samples_ms": list(self.samples_ms),
            "interval_ms": self.interval_ms,
            "iterations": self.iterations,
            "warmup": self.warmup,
            "stopped": self.stopped,
            "threads": self.threads,
        }


def measure_latency(
    call: Call,
    inputs: torch.Tensor,
    device: Device,
    options: LatencyOptions,
    clock: Clock = time.perf_counter_ns,
) -> dict[int, LatencyResult]:
    """Time ``call`` for each batch size.

    Args:
        call: maps model inputs [n, C, H, W] to logits.
        inputs: model inputs [N, C, H, W] to draw batches from; repeated where N is less than a batch.
        device: where the model lives; inputs are moved there before any timing.
        options: batch sizes, precision, time and threads.
        clock: nanoseconds.

    Returns:
        A result for each batch size, in the order of the options.
    """
    with intra_op_threads(options.threads or usable_cores()) as threads, torch.inference_mode(), _no_collector():
        return {
            size: _measure(call, make_batches(inputs.to(device.torch), size), device, options, clock, threads)
            for size in options.batch_sizes
        }


def _measure(
    call: Call, batches: Sequence[torch.Tensor], device: Device, options: LatencyOptions, clock: Clock, threads: int
) -> LatencyResult:
    budget = int(options.max_seconds * 1e9)
    begun = clock()
    warm, typical = _warm_up(call, batches, device, clock, budget // 2)
    iterations = max(1, math.ceil(SHORTEST_NS / max(typical, 1)))
    samples: list[int] = []
    look = FIRST_LOOK
    while True:
        samples.append(_sample(call, batches, len(samples) * iterations, iterations, device, clock))
        if len(samples) >= look:
            look = math.ceil(look * GROWTH)
            if _narrow(samples, options.precision):
                stopped: Stopped = "precision"
                break
        if len(samples) >= FEWEST_SAMPLES and clock() - begun >= budget:
            stopped = "time"
            break
        if len(samples) >= MOST_SAMPLES:
            stopped = "count"
            break
    return LatencyResult(
        batch_size=len(batches[0]),
        samples_ms=tuple(round(nanoseconds / iterations / 1e6, 7) for nanoseconds in samples),
        iterations=iterations,
        warmup=warm,
        stopped=stopped,
        threads=threads,
    )


def _warm_up(
    call: Call, batches: Sequence[torch.Tensor], device: Device, clock: Clock, budget: int
) -> tuple[int, float]:
    """Call until steady; the number of calls, and the last ones' median in ns."""
    begun = clock()
    times: list[int] = []
    while True:
        times.append(_sample(call, batches, len(times), 1, device, clock))
        last = statistics.median(times[-WARMUP_WINDOW:])
        if len(times) >= 2 * WARMUP_WINDOW:
            previous = statistics.median(times[-2 * WARMUP_WINDOW : -WARMUP_WINDOW])
            if abs(last - previous) <= WARMUP_STEADY * previous:
                return len(times), last
        if len(times) > 1 and clock() - begun >= budget:
            return len(times), last


def _sample(
    call: Call, batches: Sequence[torch.Tensor], first: int, iterations: int, device: Device, clock: Clock
) -> int:
    """Nanoseconds for ``iterations`` calls; which batches they take goes on from ``first``."""
    chosen = [batches[(first + i) % len(batches)] for i in range(iterations)]
    device.synchronize()
    start = clock()
    # Outputs are held until the clock has stopped: freeing them is not the model's work, and a lazy device would skip
    # work whose output nobody holds.
    outputs = [call(batch) for batch in chosen]
    device.synchronize()
    elapsed = clock() - start
    del outputs
    return elapsed


def median_interval(samples: Sequence[float]) -> tuple[float, float] | None:
    """Interval that holds the median with at least 95 % probability, whatever the distribution; None below 8 samples.

    Between the order statistics of ranks r and n + 1 - r, r = floor((n - 1.96 sqrt(n)) / 2): the number of samples
    below the median is binomial (n, 1/2). Conover, "Practical Nonparametric Statistics", 3rd ed., section 3.2.
    """
    count = len(samples)
    rank = math.floor((count - 1.96 * math.sqrt(count)) / 2)
    if rank < 1:
        return None
    ordered = sorted(samples)
    return ordered[rank - 1], ordered[count - rank]


def _narrow(samples: Sequence[float], precision: float) -> bool:
    """Whether the interval stays within ``precision`` x median on both sides."""
    interval = median_interval(samples)
    if interval is None:
        return False
    middle = statistics.median(samples)
    return max(interval[1] - middle, middle - interval[0]) <= precision * middle


@contextmanager
def _no_collector() -> Iterator[None]:
    """Collect garbage now, and not within a sample."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
