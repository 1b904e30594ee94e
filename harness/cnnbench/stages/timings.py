"""What latency comes to: the samples of a model, and the figures that a record gets from them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cnnbench.stats.rounds import Ratio, median_interval, paired_ratio, turn_medians

Stopped = Literal["precision", "time", "count"]


@dataclass(frozen=True)
class LatencyResult:
    """The samples of one model for one batch size.

    Attributes:
        batch_size: images a call.
        samples_ms: wall time of a call in ms, in the order taken; whole rounds.
        per_round: samples in each round.
        iterations: calls a sample.
        warmup: calls before the first round.
        steady: whether these ended because calls no longer got faster or slower, and not because their time was up.
        stopped: ``precision`` (the intervals of the median and of the ratio are narrow enough), ``time`` (it was up),
            or ``count`` (4000 samples of some model were not enough).
        reference_ms: median of the reference's turn in each of the rounds, in ms; None without a reference.
        threads: intra-op threads on CPU.
        cpus: processors that the process was bound to, or None.
    """

    batch_size: int
    samples_ms: tuple[float, ...]
    per_round: int
    iterations: int
    warmup: int
    steady: bool
    stopped: Stopped
    reference_ms: tuple[float, ...] | None = None
    threads: int = 1
    cpus: tuple[int, ...] | None = None

    @property
    def median_ms(self) -> float:
        """Median of a call, in ms."""
        return statistics.median(self.samples_ms)

    @property
    def interval_ms(self) -> tuple[float, float] | None:
        """95 % interval of the median, in ms; None where there are too few samples."""
        return median_interval(self.samples_ms, self.per_round)

    @property
    def ratio(self) -> Ratio | None:
        """Time of a call over the reference's, paired by round; None without a reference."""
        if self.reference_ms is None:
            return None
        return paired_ratio(turn_medians(self.samples_ms, self.per_round), self.reference_ms)

    @property
    def throughput(self) -> float:
        """Images a second at the median."""
        return self.batch_size / self.median_ms * 1000

    def percentile(self, percent: float) -> float:
        """A percentile in ms, interpolated linearly."""
        return float(np.percentile(self.samples_ms, percent))

    def within(self, precision: float) -> bool:
        """Whether the intervals of the median and of the ratio stay within that share of them, on both sides."""
        ratio = self.ratio
        return _narrow(self.median_ms, self.interval_ms, precision) and (
            ratio is None or _narrow(ratio.median, ratio.interval, precision)
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Scalars, keyed as in ``cnnbench.quantities``."""
        n = self.batch_size
        ratio = self.ratio
        return {
            f"latency_b{n}_ms": self.median_ms,
            f"latency_b{n}_p95_ms": self.percentile(95),
            f"latency_b{n}_p99_ms": self.percentile(99),
            f"throughput_b{n}": self.throughput,
            **({f"latency_b{n}_ratio": ratio.median} if ratio else {}),
        }

    @property
    def details(self) -> dict[str, Any]:
        """What a record keeps: the samples, and how they were taken."""
        ratio, interval = self.ratio, self.interval_ms
        return {
            "samples_ms": list(self.samples_ms),
            "per_round": self.per_round,
            "iterations": self.iterations,
            "warmup": self.warmup,
            "steady": self.steady,
            "interval_ms": None if interval is None else list(interval),
            "stopped": self.stopped,
            "threads": self.threads,
            "cpus": None if self.cpus is None else list(self.cpus),
            "reference_ms": None if self.reference_ms is None else list(self.reference_ms),
            "ratio": None if ratio is None or ratio.interval is None else [ratio.median, *ratio.interval],
        }


@dataclass(frozen=True)
class LatencyFigures:
    """One model's latency for a record.

    Attributes:
        results: one for each batch size, in the order of the options.
    """

    results: tuple[LatencyResult, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """Scalars, keyed as in ``cnnbench.quantities``."""
        return {key: value for result in self.results for key, value in result.metrics.items()}

    @property
    def details(self) -> dict[str, dict[str, Any]]:
        """What a record keeps, by batch size."""
        return {str(result.batch_size): result.details for result in self.results}


def _narrow(middle: float, interval: tuple[float, float] | None, precision: float) -> bool:
    return interval is not None and max(interval[1] - middle, middle - interval[0]) <= precision * middle
