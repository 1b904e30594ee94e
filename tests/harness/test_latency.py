from __future__ import annotations

import gc
import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from cnnbench.devices import Device
from cnnbench.environment import usable_cores
from cnnbench.stages.latency import (
    FEWEST_SAMPLES,
    FIRST_LOOK,
    GROWTH,
    MOST_SAMPLES,
    LatencyResult,
    make_batches,
    measure_latency,
    median_interval,
)
from cnnbench.stages.latency import _measure as sample_one_size
from cnnbench.types import LatencyOptions

CPU = Device("cpu")
INPUTS = torch.arange(40.0).reshape(40, 1, 1, 1)


class FakeTime:
    """A clock that moves only while the model is called."""

    def __init__(self, durations) -> None:
        self.now = 0
        self.calls = []
        self._durations = iter(durations)

    def __call__(self) -> int:
        return self.now

    def model(self, batch: torch.Tensor) -> torch.Tensor:
        self.calls.append(batch)
        self.now += round(next(self._durations))
        return batch


def _forever(value):
    while True:
        yield value


def _measure(durations, **options) -> tuple[LatencyResult, FakeTime]:
    fake = FakeTime(durations)
    given_options = LatencyOptions(**{"batch_sizes": (4,), "threads": 1, **options})
    (result,) = measure_latency(fake.model, INPUTS, CPU, given_options, clock=fake).values()
    return result, fake


def test_a_quiet_machine_stops_at_the_first_look() -> None:
    result, fake = _measure(_forever(2e6))
    assert result.stopped == "precision"
    assert result.samples_ms == (2.0,) * FIRST_LOOK
    assert result.warmup == 10
    assert len(fake.calls) == result.warmup + FIRST_LOOK
    assert result.metrics == pytest.approx(
        {"latency_b4_ms": 2, "latency_b4_p95_ms": 2, "latency_b4_p99_ms": 2, "throughput_b4": 2000}
    )


def test_sampling_goes_on_until_the_interval_is_narrow() -> None:
    rng = np.random.default_rng(0)
    result, _ = _measure((1e6 * math.exp(rng.normal(0, 0.15)) for _ in iter(int, 1)), max_seconds=1e3)
    assert result.stopped == "precision"
    assert len(result.samples_ms) > FIRST_LOOK
    low, high = result.interval_ms
    assert result.median_ms * 0.98 <= low <= high <= result.median_ms * 1.02
    looks = [FIRST_LOOK]
    while looks[-1] < len(result.samples_ms):
        looks.append(math.ceil(looks[-1] * GROWTH))
    previous = median_interval(result.samples_ms[: looks[-2]])
    middle = statistics.median(result.samples_ms[: looks[-2]])
    assert looks[-1] == len(result.samples_ms)
    assert max(previous[1] - middle, middle - previous[0]) > 0.02 * middle


def test_time_ends_the_sampling() -> None:
    rng = np.random.default_rng(0)
    result, fake = _measure((1e6 * math.exp(rng.normal(0, 1)) for _ in iter(int, 1)), max_seconds=0.2)
    assert result.stopped == "time"
    assert 0.2e9 <= fake.now < 0.25e9


def test_a_call_longer_than_the_time_is_still_sampled() -> None:
    result, _ = _measure(_forever(5e9), max_seconds=2.0)
    assert result.stopped == "time"
    assert len(result.samples_ms) == FEWEST_SAMPLES
    assert result.warmup == 2
    assert result.interval_ms is None


def test_the_number_of_samples_is_bounded() -> None:
    rng = np.random.default_rng(0)
    result, _ = _measure((1e5 * math.exp(rng.normal(0, 3)) for _ in iter(int, 1)), precision=1e-4, max_seconds=1e9)
    assert result.stopped == "count"
    assert len(result.samples_ms) == MOST_SAMPLES


def test_warm_up_lasts_while_calls_still_get_faster() -> None:
    cooling = [1e6 * (1 + 20 * math.exp(-i / 5)) for i in range(60)]
    result, _ = _measure([*cooling, *_take(1e6, 1000)], max_seconds=10)
    assert result.warmup > 25
    assert max(result.samples_ms) < 1.1


def _take(value, count):
    return [value] * count


def test_warm_up_uses_at_most_half_of_the_time() -> None:
    ever_faster = (1e7 * 0.98**i for i in range(10_000))  # never within 5 % of five calls before
    result, _ = _measure(ever_faster, max_seconds=0.2)
    assert 0.08e9 < sum(round(1e7 * 0.98**i) for i in range(result.warmup)) < 0.12e9


def test_short_calls_are_timed_together() -> None:
    result, fake = _measure(_forever(2000))
    assert result.iterations == 25  # 50 us of 2 us each
    assert result.samples_ms == (0.002,) * FIRST_LOOK
    assert len(fake.calls) == result.warmup + FIRST_LOOK * 25


def test_inputs_are_taken_in_turn() -> None:
    _, fake = _measure(_forever(2000))
    firsts = [int(batch[0]) for batch in fake.calls[10:]]  # after warm-up
    assert firsts == [4 * (i % 8) for i in range(len(firsts))]


@pytest.mark.parametrize(("size", "count"), [(1, 8), (4, 8), (10, 4), (20, 2), (32, 1), (100, 1)])
def test_batches_have_the_size_asked_for(size, count) -> None:
    batches = make_batches(INPUTS, size)
    assert [len(batch) for batch in batches] == [size] * count
    assert torch.cat(batches).flatten().tolist() == [i % 40 for i in range(size * count)]


def test_threads_collector_and_gradients_are_set_within_and_restored() -> None:
    before = torch.get_num_threads()
    seen = set()

    def model(batch: torch.Tensor) -> torch.Tensor:
        seen.add((torch.get_num_threads(), gc.isenabled(), torch.is_inference_mode_enabled()))
        return batch

    torch.set_num_threads(2)
    try:
        got = measure_latency(model, INPUTS, CPU, LatencyOptions((1, 2), max_seconds=0.01, threads=1))
        assert seen == {(1, False, True)}
        assert [result.threads for result in got.values()] == [1, 1]
        assert list(got) == [1, 2]
        assert torch.get_num_threads() == 2
        assert gc.isenabled()
        free = measure_latency(model, INPUTS, CPU, LatencyOptions((1,), max_seconds=0.01))
        assert free[1].threads == usable_cores()
        with pytest.raises(ZeroDivisionError):
            measure_latency(lambda _: 1 / 0, INPUTS, CPU, LatencyOptions((1,)))
        assert torch.get_num_threads() == 2
        assert gc.isenabled()
    finally:
        torch.set_num_threads(before)


def test_the_device_is_waited_for_around_each_sample() -> None:
    class Watched(Device):
        def synchronize(self) -> None:
            events.append("wait")

    events: list[str] = []
    fake = FakeTime(_forever(1e6))

    def model(batch: torch.Tensor) -> torch.Tensor:
        events.append("call")
        return fake.model(batch)

    measure_latency(model, INPUTS, Watched("cpu"), LatencyOptions((4,), threads=1), clock=fake)
    assert events == ["wait", "call", "wait"] * (10 + FIRST_LOOK)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=300))
def test_median_and_percentiles_are_numpys(samples) -> None:
    result = LatencyResult(8, tuple(samples), 1, 0, "time", 1)
    expected = np.percentile(samples, [50, 95, 99])
    metrics = result.metrics
    assert [metrics["latency_b8_ms"], metrics["latency_b8_p95_ms"], metrics["latency_b8_p99_ms"]] == pytest.approx(
        expected.tolist()
    )
    assert metrics["throughput_b8"] == pytest.approx(8000 / expected[0])


def test_the_interval_covers_the_median_exactly_as_often_as_the_binomial_says() -> None:
    for count in range(1, 2000):
        interval = median_interval(range(1, count + 1))
        if interval is None:
            assert count < 8
            continue
        low, high = interval
        # The interval misses where fewer than `low` or at least `high` samples lie below the median.
        assert binom.cdf(high - 1, count, 0.5) - binom.cdf(low - 1, count, 0.5) >= 0.95
        assert low + high == count + 1


def test_the_interval_is_no_wider_than_it_need_be() -> None:
    for count in (30, 100, 1000):
        low, high = median_interval(range(1, count + 1))
        assert binom.cdf(high - 3, count, 0.5) - binom.cdf(low + 1, count, 0.5) < 0.95


def test_coverage_survives_looking_again_and_again() -> None:
    """Simulated runs of skewed samples that stop by the rule: how often the interval holds the true median.

    Looking more than once costs some of the nominal 95 %; looking after every sample would cost far more.
    """
    rng = np.random.default_rng(1)
    runs, held, counts = 400, 0, set()
    for _ in range(runs):
        fake = FakeTime(np.exp(rng.normal(0, 0.05, 1000)) * 1e6)
        options = LatencyOptions(max_seconds=1e9)
        result = sample_one_size(fake.model, [INPUTS], CPU, options, fake, 1)
        assert result.stopped == "precision"
        counts.add(len(result.samples_ms))
        low, high = result.interval_ms
        held += low <= 1 <= high
    assert len(counts) > 1
    assert held / runs >= 0.92


def test_details_are_what_a_record_keeps() -> None:
    result = LatencyResult(1, (1.0, 2.0, 3.0), 2, 10, "time", 4)
    assert result.details == {
        "samples_ms": [1.0, 2.0, 3.0],
        "interval_ms": None,
        "iterations": 2,
        "warmup": 10,
        "stopped": "time",
        "threads": 4,
    }
