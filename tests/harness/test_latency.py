from __future__ import annotations

import gc
import itertools
import json
import math
import random
import re
import statistics
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.devices import Device
from cnnbench.environment import usable_cores
from cnnbench.stages.latency import (
    FEWEST_ROUNDS,
    FIRST_LOOK,
    GROWTH,
    MOST_SAMPLES,
    measure_latency,
)
from cnnbench.stages.subject import Subject, make_batches
from cnnbench.stages.timings import LatencyFigures, LatencyResult
from cnnbench.stages.turns import MOST_A_TURN, SHORTEST_NS
from cnnbench.stats.rounds import called_different, median_interval, paired_ratio
from cnnbench.types import LatencyOptions

CPU = Device("cpu")
INPUTS = torch.arange(40.0).reshape(40, 1, 1, 1)
WARMUP = 10
ARMS = {"twin": "base", "arm": "base"}


@pytest.fixture(autouse=True)
def collections(monkeypatch) -> list[bool]:
    """Collections of garbage asked for: whether the collector was on. None takes place: slow beside such sessions."""
    asked: list[bool] = []
    monkeypatch.setattr(gc, "collect", lambda: asked.append(gc.isenabled()))
    return asked


class FakeTime:
    """A clock that moves only while a model is called.

    Attributes:
        now: ns.
        calls: names of the models called, in order.
        batches: what each was called on.
    """

    def __init__(self) -> None:
        self.now = 0
        self.calls: list[str] = []
        self.batches: list[torch.Tensor] = []

    def __call__(self) -> int:
        return self.now

    def subject(self, durations, name: str = "one") -> Subject:
        """A model whose calls last as long as the iterator, or the function of the time, says, in ns."""
        given = iter(durations) if not callable(durations) else None

        def call(batch: torch.Tensor) -> torch.Tensor:
            self.calls.append(name)
            self.batches.append(batch)
            self.now += round(durations(self.now) if given is None else next(given))
            return batch

        return Subject(call, INPUTS)


def _options(**options) -> LatencyOptions:
    return LatencyOptions(**{"batch_sizes": (4,), "threads": 1, **options})


def _one(durations, device: Device = CPU, **options) -> tuple[LatencyResult, FakeTime]:
    """One model alone."""
    fake = FakeTime()
    found = measure_latency(
        {"one": fake.subject(durations)}, device, _options(**options), {}, clock=fake, shuffle=random.Random(0)
    )
    (result,) = found["one"].results
    return result, fake


def _several(durations, references=None, seed: int = 0, **options) -> tuple[dict, FakeTime]:
    """Several models by name; the first one's result of each, and what was called when."""
    fake = FakeTime()
    subjects = {name: fake.subject(given, name) for name, given in durations.items()}
    found = measure_latency(
        subjects, CPU, _options(**options), references or {}, clock=fake, shuffle=random.Random(seed)
    )
    return {n: f if isinstance(f, Exception) else f.results[0] for n, f in found.items()}, fake


def _lognormal(scale: float, sigma: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    return (scale * math.exp(rng.normal(0, sigma)) for _ in iter(int, 1))


def _rounds(fake: FakeTime, results: dict[str, LatencyResult]) -> list[tuple[str, ...]]:
    """The order of turns in each round, from the calls after the warm-up."""
    length = {name: result.per_round + 1 for name, result in results.items()}
    turns = []
    calls = fake.calls[sum(r.warmup for r in results.values()) :]
    while calls:
        name = calls[0]
        assert calls[: length[name]] == [name] * length[name], "a turn is whole"
        turns.append(name)
        calls = calls[length[name] :]
    return [tuple(turns[i : i + len(results)]) for i in range(0, len(turns), len(results))]


def test_garbage_is_collected_before_each_batch_size_and_not_by_itself(collections) -> None:
    _one(itertools.repeat(1e6))
    assert collections == [False]


# When sampling ends.


def test_a_quiet_machine_stops_at_the_first_look() -> None:
    result, fake = _one(itertools.repeat(2e6))
    assert result.stopped == "precision"
    assert result.per_round == 3  # about 5 ms
    assert result.samples_ms == (2.0,) * 3 * FIRST_LOOK
    assert result.warmup == WARMUP
    assert len(fake.calls) == WARMUP + (1 + 3) * FIRST_LOOK
    assert result.metrics == pytest.approx(
        {"latency_b4_ms": 2, "latency_b4_p95_ms": 2, "latency_b4_p99_ms": 2, "throughput_b4": 2000}
    )


def test_sampling_goes_on_until_the_interval_is_narrow() -> None:
    result, _ = _one(_lognormal(1e6, 0.15), max_seconds=1e3)
    assert result.stopped == "precision"
    k = result.per_round
    rounds = len(result.samples_ms) // k
    assert rounds > FIRST_LOOK
    low, high = result.interval_ms
    assert result.median_ms * 0.98 <= low <= high <= result.median_ms * 1.02
    looks = [FIRST_LOOK]
    while looks[-1] < rounds:
        looks.append(math.ceil(looks[-1] * GROWTH))
    assert looks[-1] == rounds
    before = result.samples_ms[: looks[-2] * k]
    previous, middle = median_interval(before, k), statistics.median(before)
    assert max(previous[1] - middle, middle - previous[0]) > 0.02 * middle


def test_sampling_goes_on_until_the_ratio_is_known_too() -> None:
    # Ten samples a turn: their medians are known long before the ratio of ten turns is.
    durations = {"base": _lognormal(1e5, 0.05, 1), "arm": _lognormal(1e5, 0.05, 2)}
    alone, _ = _several({n: _lognormal(1e5, 0.05, i) for i, n in enumerate(durations, 1)}, max_seconds=1e3)
    paired, _ = _several(durations, {"arm": "base"}, max_seconds=1e3)
    assert alone["arm"].stopped == paired["arm"].stopped == "precision"
    assert len(paired["arm"].samples_ms) > len(alone["arm"].samples_ms)
    ratio = paired["arm"].ratio
    assert ratio.median * 0.98 <= ratio.low <= ratio.high <= ratio.median * 1.02


def test_all_stay_in_until_the_last_is_known() -> None:
    results, _ = _several({"quiet": itertools.repeat(1e6), "noisy": _lognormal(1e6, 0.2)}, max_seconds=1e3)
    rounds = {len(result.samples_ms) / result.per_round for result in results.values()}
    assert len(rounds) == 1
    assert rounds.pop() > 3 * FIRST_LOOK
    assert results["quiet"].stopped == results["noisy"].stopped == "precision"


def test_time_ends_the_sampling_and_each_says_how_far_it_came() -> None:
    results, fake = _several({"quiet": itertools.repeat(1e6), "noisy": _lognormal(1e6, 1)}, max_seconds=0.2)
    assert results["noisy"].stopped == "time"
    assert results["quiet"].stopped == "precision"
    assert 0.4e9 <= fake.now < 0.45e9  # for two of them, warm-up included


def test_a_call_longer_than_the_time_is_still_sampled() -> None:
    result, _ = _one(itertools.repeat(5e9), max_seconds=2.0)
    assert result.stopped == "time"
    assert len(result.samples_ms) == FEWEST_ROUNDS
    assert result.warmup == 2
    assert not result.steady  # two calls can't tell
    assert result.interval_ms is None


def test_the_number_of_samples_is_bounded() -> None:
    result, _ = _one(_lognormal(1e5, 3), precision=1e-4, max_seconds=1e9)
    assert result.stopped == "count"
    assert MOST_SAMPLES <= len(result.samples_ms) < MOST_SAMPLES + MOST_A_TURN


@pytest.mark.parametrize("kind", ["independent", "rounds alike"])
def test_coverage_survives_looking_again_and_again(kind) -> None:
    """Simulated runs that stop by the rule: how often the interval holds the true median, 1 ms.

    Looking more than once costs some of the nominal 95 %; looking after every round would cost far more.
    """
    rng = np.random.default_rng(1)
    runs, held, counts = 200, 0, set()
    for _ in range(runs):
        noise = rng.normal(0, 0.05, (3000, 6))
        if kind == "rounds alike":
            noise = (noise + rng.normal(0, 0.05, (3000, 1))) / math.sqrt(2)
        # Ten calls of warm-up, which decide on five samples a turn; then turns of six calls.
        durations = itertools.chain([1e6] * WARMUP, np.exp(noise.ravel()) * 1e6)
        result, _ = _one(durations, max_seconds=1e9)
        assert (result.stopped, result.per_round) == ("precision", 5)
        counts.add(len(result.samples_ms))
        low, high = result.interval_ms
        held += low <= 1 <= high
    assert len(counts) > 1
    assert held / runs >= 0.92


# Warm-up.


def test_warm_up_lasts_while_calls_still_get_faster() -> None:
    cooling = [1e6 * (1 + 20 * math.exp(-i / 5)) for i in range(60)]
    result, _ = _one([*cooling, *[1e6] * 1000], max_seconds=10)
    assert result.warmup > 25
    assert result.steady
    assert max(result.samples_ms) < 1.1


def test_warm_up_uses_at_most_half_of_the_time() -> None:
    ever_faster = (1e7 * 0.98**i for i in range(10_000))  # never within 5 % of five calls before
    result, _ = _one(ever_faster, max_seconds=0.2)
    assert 0.08e9 < sum(round(1e7 * 0.98**i) for i in range(result.warmup)) < 0.12e9
    assert not result.steady


class Gpu(Device):
    """A CUDA device whose work this process's CPU does."""

    @property
    def torch(self) -> torch.device:
        return torch.device("cpu")

    def synchronize(self) -> None:
        pass


@pytest.mark.parametrize("seconds", [10.0, 0.1])
def test_a_gpu_works_for_a_second_before_the_first_round_whatever_the_time(seconds) -> None:
    result, _ = _one(itertools.repeat(1e6), Gpu("cuda", 0), max_seconds=seconds)
    assert result.warmup == 1000
    assert result.steady
    assert result.stopped == "precision"
    assert len(result.samples_ms) == FIRST_LOOK * result.per_round


def test_the_time_of_a_gpu_that_is_never_steady_counts_from_the_end_of_that_second() -> None:
    result, fake = _one(itertools.cycle([1e6] * 5 + [2e6] * 5), Gpu("cuda", 0), precision=1e-9, max_seconds=1.0)
    assert not result.steady
    assert 1.5e9 <= result.warmup * 1.5e6 < 1.51e9
    assert result.stopped == "time"
    assert 2e9 <= fake.now < 2.1e9


def test_a_gpu_that_has_settled_need_not_settle_again() -> None:
    fake = FakeTime()
    subjects = {name: fake.subject(itertools.repeat(1e6), name) for name in ("first", "second")}
    options = _options(batch_sizes=(1, 4), max_seconds=10.0)
    found = measure_latency(subjects, Gpu("cuda", 0), options, {}, clock=fake, shuffle=random.Random(0))
    assert [r.warmup for f in found.values() for r in f.results] == [1000, WARMUP, WARMUP, WARMUP]


# Turns and rounds.


def test_short_calls_are_timed_together() -> None:
    result, fake = _one(itertools.repeat(2000))
    assert result.iterations == SHORTEST_NS / 2000 == 25
    assert result.per_round == MOST_A_TURN
    assert result.samples_ms == (0.002,) * FIRST_LOOK * MOST_A_TURN
    assert len(fake.calls) == WARMUP + FIRST_LOOK * (1 + MOST_A_TURN * 25)


def test_turns_are_planned_from_the_quickest_call() -> None:
    # A machine disturbed during most of the warm-up must not make for samples too short for the clock.
    result, _ = _one([*[1e6] * 9, 2000, *itertools.repeat(2000, 10_000)])
    assert result.iterations == 25


def test_inputs_are_taken_in_turn() -> None:
    _, fake = _one(itertools.repeat(2000))
    firsts = [int(batch[0]) for batch in fake.batches]
    assert firsts == [4 * (i % 8) for i in range(len(firsts))]


@pytest.mark.parametrize(("size", "count"), [(1, 8), (4, 8), (10, 4), (20, 2), (32, 1), (100, 1)])
def test_batches_have_the_size_asked_for(size, count) -> None:
    batches = make_batches(INPUTS, size)
    assert [len(batch) for batch in batches] == [size] * count
    assert torch.cat(batches).flatten().tolist() == [i % 40 for i in range(size * count)]


def test_the_first_call_of_a_turn_is_not_recorded() -> None:
    """A model whose first call after another one's takes ten times as long: caches, threads that still spin."""
    fake = FakeTime()

    def model(name: str) -> Subject:
        return fake.subject(lambda _: 1e7 if [name, *fake.calls][-2] != name else 1e6, name)

    subjects = {name: model(name) for name in "abc"}
    found = measure_latency(subjects, CPU, _options(), {}, clock=fake, shuffle=random.Random(0))
    for figures in found.values():
        assert set(figures.results[0].samples_ms) == {1.0}


def test_every_round_has_one_turn_of_each_in_an_order_drawn_anew() -> None:
    given = {name: itertools.repeat(duration) for name, duration in (("a", 1e6), ("b", 2e6), ("c", 1e7))}
    noisy = {**given, "d": _lognormal(1e6, 1)}
    results, fake = _several(noisy, max_seconds=1.0)
    assert {name: result.per_round for name, result in results.items()}.items() >= {"a": 5, "b": 3, "c": 1}.items()
    rounds = _rounds(fake, results)
    assert len(rounds) > 80
    assert all(sorted(turns) == list("abcd") for turns in rounds)
    assert len(set(rounds)) > 20  # of 24 orders
    before = Counter(pair for turns in rounds for pair in itertools.pairwise(turns))
    assert len(before) == 12, "each follows each"
    # A pair is next to each other in this order in a quarter of the rounds.
    assert max(before.values()) < 0.45 * len(rounds)
    _, again = _several({n: itertools.repeat(1e6) for n in "abcd"}, seed=0)
    _, other = _several({n: itertools.repeat(1e6) for n in "abcd"}, seed=1)
    _, same = _several({n: itertools.repeat(1e6) for n in "abcd"}, seed=0)
    assert again.calls == same.calls != other.calls


def test_drift_that_hits_all_alike_leaves_the_ratio_alone() -> None:
    def slower(factor: float):
        return lambda now: factor * 1e6 * (1 + now / 5e9)  # twice as slow after five seconds

    options = {"max_seconds": 3.0, "precision": 1e-6}
    results, _ = _several({n: slower(f) for n, f in (("base", 1), ("twin", 1), ("arm", 1.5))}, ARMS, **options)
    assert results["twin"].ratio.median == pytest.approx(1, abs=0.005)
    assert results["twin"].ratio.low < 1 < results["twin"].ratio.high
    assert results["arm"].ratio.median == pytest.approx(1.5, abs=0.01)
    # One after the other, as stages of their own, the twins would differ by more than an eighth.
    fake = FakeTime()
    medians = []
    for _ in range(2):
        found = measure_latency(
            {"one": fake.subject(slower(1))}, CPU, _options(**options), {}, clock=fake, shuffle=random.Random(0)
        )
        medians.append(found["one"].results[0].median_ms)
    assert medians[1] / medians[0] > 1.125


def test_ratios_pair_the_turns_of_one_round() -> None:
    durations = {n: _lognormal(1e6, 0.1, seed) for seed, n in enumerate(("base", "twin", "arm"))}
    results, _ = _several(durations, ARMS, max_seconds=0.3, precision=1e-6)
    base, arm = results["base"], results["arm"]
    turns = np.median(np.reshape(base.samples_ms, (-1, base.per_round)), axis=1)
    assert arm.reference_ms == results["twin"].reference_ms == pytest.approx(turns)
    assert base.reference_ms is None
    assert base.ratio is None
    own = np.median(np.reshape(arm.samples_ms, (-1, arm.per_round)), axis=1)
    assert arm.metrics["latency_b4_ratio"] == pytest.approx(np.median(own / turns))
    assert arm.details["ratio"] == pytest.approx([arm.ratio.median, arm.ratio.low, arm.ratio.high])
    assert arm.ratio == paired_ratio(own, turns)


@pytest.mark.parametrize(("factor", "called", "least"), [(1.0, "same", 95), (1.1, "slower", 90)])
def test_an_arm_against_itself_is_called_different_in_a_twentieth_at_most(factor, called, least) -> None:
    """Simulated sessions on a busy machine: it wanders by a tenth, disturbs calls, and holds up one in thirty.

    The two copies differ by half a percent besides, as two places in memory may.
    """
    calls = Counter()
    for session in range(100):
        rng = np.random.default_rng(session)
        machine = 0.0

        def lasting(typical: float, rng=rng):
            def durations():
                nonlocal machine
                while True:
                    machine = 0.99 * machine + 0.014 * rng.normal()
                    held_up = rng.exponential() if rng.random() < 1 / 30 else 0.0
                    yield typical * math.exp(machine + 0.02 * rng.normal()) * (1 + held_up)

            return durations()

        layout = math.exp(0.005 * rng.normal())
        arms = {"base": lasting(1e6), "arm": lasting(factor * layout * 1e6)}
        results, _ = _several(arms, {"arm": "base"}, seed=session, max_seconds=0.2)
        calls[called_different(results["arm"].ratio, 0.02)] += 1
    assert calls[called] >= least


# Models that fail.


class BrokenError(Exception):
    pass


def _failing(fake: FakeTime, after: int, error: BaseException, name: str = "bad") -> Subject:
    def durations():
        yield from itertools.repeat(1e6, after)
        raise error

    return fake.subject(durations(), name)


@pytest.mark.parametrize("after", [0, 5, WARMUP, WARMUP + 8, WARMUP + 20])
def test_a_model_that_raises_is_dropped_and_the_others_go_on(after) -> None:
    fake, error = FakeTime(), BrokenError("kernel")
    subjects = {
        "base": fake.subject(itertools.repeat(1e6), "base"),
        "bad": _failing(fake, after, error),
        "arm": fake.subject(itertools.repeat(2e6), "arm"),
    }
    references = {"bad": "base", "arm": "base"}
    found = measure_latency(subjects, CPU, _options(), references, clock=fake, shuffle=random.Random(0))
    assert list(found) == ["base", "bad", "arm"]
    assert found["bad"] is error
    assert fake.calls.count("bad") == after + 1
    assert len(found["base"].results[0].samples_ms) == 5 * FIRST_LOOK
    assert found["arm"].results[0].ratio.median == 2


@pytest.mark.parametrize("after", [0, WARMUP + 8])
def test_without_its_reference_a_model_has_no_ratio(after) -> None:
    fake = FakeTime()
    subjects = {"base": _failing(fake, after, BrokenError()), "arm": fake.subject(itertools.repeat(1e6))}
    found = measure_latency(subjects, CPU, _options(), {"arm": "base"}, clock=fake, shuffle=random.Random(0))
    assert isinstance(found["base"], BrokenError)
    assert found["arm"].details["4"]["ratio"] is None
    assert found["arm"].details["4"]["reference_ms"] is None
    assert "latency_b4_ratio" not in found["arm"].metrics


def test_what_fails_at_one_batch_size_is_out_of_the_next() -> None:
    sizes = []
    fake = FakeTime()
    inner = fake.subject(itertools.repeat(1e6))

    def call(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) == 2:
            raise BrokenError
        return inner.call(batch)

    subjects = {"bad": Subject(call, INPUTS), "good": fake.subject(itertools.repeat(1e6))}
    options = _options(batch_sizes=(1, 2, 4), max_seconds=0.01)
    found = measure_latency(subjects, CPU, options, {}, clock=fake, shuffle=random.Random(0))
    assert isinstance(found["bad"], BrokenError)
    assert sizes.count(2) == 1
    assert 4 not in sizes
    assert [result.batch_size for result in found["good"].results] == [1, 2, 4]


def test_inputs_that_do_not_fit_cost_their_model_alone() -> None:
    class Full:
        def to(self, device: object) -> torch.Tensor:
            raise torch.OutOfMemoryError

    fake = FakeTime()
    subjects = {"bad": Subject(lambda batch: batch, Full()), "good": fake.subject(itertools.repeat(1e6))}
    found = measure_latency(subjects, CPU, _options(), {}, clock=fake, shuffle=random.Random(0))
    assert isinstance(found["bad"], torch.OutOfMemoryError)
    assert found["good"].metrics["latency_b4_ms"] == 1


def test_where_all_fail_there_are_only_exceptions() -> None:
    fake = FakeTime()
    subjects = {name: _failing(fake, 3, BrokenError(name), name) for name in "ab"}
    found = measure_latency(subjects, CPU, _options(), {"a": "b"}, clock=fake, shuffle=random.Random(0))
    assert {name: str(error) for name, error in found.items()} == {"a": "a", "b": "b"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_an_interrupt_goes_through(error) -> None:
    fake = FakeTime()
    subjects = {"bad": _failing(fake, 5, error)}
    threads = torch.get_num_threads()
    with pytest.raises(type(error)):
        measure_latency(subjects, CPU, _options(), {}, clock=fake, shuffle=random.Random(0))
    assert gc.isenabled()
    assert torch.get_num_threads() == threads


# What surrounds the calls.


def test_threads_collector_and_gradients_are_set_within_and_restored() -> None:
    before = torch.get_num_threads()
    seen = set()

    def model(batch: torch.Tensor) -> torch.Tensor:
        seen.add((torch.get_num_threads(), gc.isenabled(), torch.is_inference_mode_enabled()))
        return batch

    def measure(options: LatencyOptions) -> LatencyFigures:
        return measure_latency({"one": Subject(model, INPUTS)}, CPU, options, {}, shuffle=random.Random(0))["one"]

    torch.set_num_threads(2)
    try:
        got = measure(LatencyOptions((1, 2), max_seconds=0.01, threads=1))
        assert seen == {(1, False, True)}
        assert [result.threads for result in got.results] == [1, 1]
        assert [result.batch_size for result in got.results] == [1, 2]
        assert torch.get_num_threads() == 2
        assert gc.isenabled()
        assert measure(LatencyOptions((1,), max_seconds=0.01)).results[0].threads == usable_cores()
    finally:
        torch.set_num_threads(before)


def test_the_process_is_bound_to_as_many_cores_as_threads(monkeypatch) -> None:
    asked: list[int] = []

    @contextmanager
    def bound(count: int):
        asked.append(count)
        yield (7,)

    monkeypatch.setattr("cnnbench.stages.latency.bound_to_cores", bound)
    result, _ = _one(itertools.repeat(1e6))
    assert asked == [1]
    assert result.cpus == (7,)
    on_gpu, _ = _one(itertools.repeat(1e6), Gpu("cuda", 0))
    assert asked == [1]
    assert on_gpu.cpus is None


def test_the_device_is_waited_for_around_each_sample() -> None:
    class Watched(Device):
        def synchronize(self) -> None:
            events.append("wait")

    events: list[str] = []
    fake = FakeTime()
    inner = fake.subject(itertools.repeat(1e7))

    def model(batch: torch.Tensor) -> torch.Tensor:
        events.append("call")
        return inner.call(batch)

    measure_latency(
        {"one": Subject(model, INPUTS)}, Watched("cpu"), _options(), {}, clock=fake, shuffle=random.Random(0)
    )
    assert events == ["wait", "call", "wait"] * (WARMUP + 2 * FIRST_LOOK)


def test_outputs_are_held_until_the_clock_has_stopped() -> None:
    """Events in order, a letter each: wait for the device, clock read, call, output freed."""

    class Output:
        def __del__(self) -> None:
            events.append("f")

    class Watched(Device):
        def synchronize(self) -> None:
            events.append("w")

    def clock() -> int:
        events.append("c")
        return fake.now

    def call(batch: torch.Tensor) -> Output:
        events.append("x")
        inner.call(batch)
        return Output()

    events: list[str] = []
    fake = FakeTime()
    inner = fake.subject(itertools.repeat(25_000))
    subjects = {"one": Subject(call, INPUTS)}
    measure_latency(subjects, Watched("cpu"), _options(), {}, clock=clock, shuffle=random.Random(0))
    samples = re.findall("wc(x+)wc(f+)", "".join(events))
    assert Counter(samples) == {("x", "f"): WARMUP + FIRST_LOOK, ("xx", "ff"): FIRST_LOOK * MOST_A_TURN}
    assert sum(len(calls) for calls, _ in samples) == len(fake.calls)


# What a record keeps.


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=300))
def test_median_and_percentiles_are_numpys(samples) -> None:
    result = LatencyResult(8, tuple(samples), 1, 1, 0, True, "time")
    expected = np.percentile(samples, [50, 95, 99])
    metrics = result.metrics
    assert [metrics["latency_b8_ms"], metrics["latency_b8_p95_ms"], metrics["latency_b8_p99_ms"]] == pytest.approx(
        expected.tolist()
    )
    assert metrics["throughput_b8"] == pytest.approx(8000 / expected[0])


def test_details_are_what_a_record_keeps() -> None:
    result = LatencyResult(1, (1.0, 2.0, 3.0, 5.0), 2, 3, 10, False, "time", (1.0, 4.0), 4, (0, 2))
    figures = LatencyFigures((result,))
    assert figures.details == {
        "1": {
            "samples_ms": [1.0, 2.0, 3.0, 5.0],
            "per_round": 2,
            "iterations": 3,
            "warmup": 10,
            "steady": False,
            "interval_ms": None,
            "stopped": "time",
            "threads": 4,
            "cpus": [0, 2],
            "reference_ms": [1.0, 4.0],
            "ratio": None,  # too few rounds for an interval
        }
    }
    assert json.loads(json.dumps(figures.details)) == figures.details
    assert figures.metrics["latency_b1_ratio"] == pytest.approx((1.5 + 1.0) / 2)
