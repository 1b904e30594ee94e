"""What latency is worth: agreement with two reference timers, and an arm against itself.

Agreement: in each of several rounds the same call on the same model is timed by the harness, by torch.utils.benchmark
and by pytest-benchmark, in an order drawn anew, and their medians are compared within the round. A/A: two deep copies
of one network are measured in a session of their own, many times; how often are they called different?
"""

from __future__ import annotations

import copy
import os
import random
import statistics
from typing import TYPE_CHECKING

import pytest
import torch
from torch.utils.benchmark import Timer
from torchvision.models import mobilenet_v3_small, resnet18

from cnnbench.devices import Device
from cnnbench.options import make
from cnnbench.plugins import PluginHost
from cnnbench.stages.latency import measure_latency
from cnnbench.stages.pinning import bound_to_cores
from cnnbench.stages.subject import Subject, make_batches
from cnnbench.stages.threads import intra_op_threads
from cnnbench.stats.rounds import called_different, paired_ratio
from cnnbench.types import Choice, LatencyOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

CPU = Device("cpu")
THREADS = 1
SECONDS = 0.4
"""Of each timer in each round."""
ROUNDS = int(os.environ.get("CNNBENCH_BENCHMARK_ROUNDS", "10"))
SESSIONS = int(os.environ.get("CNNBENCH_BENCHMARK_SESSIONS", "100"))
SESSION_SECONDS = 0.2
"""For each of the two copies."""
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "resnet-8 28x28": (lambda: _own("resnet", depth=8, width=16), (1, 28, 28)),
    "resnet18 64x64": (lambda: resnet18(num_classes=10), (3, 64, 64)),
    "mobilenet_v3_small 64x64": (lambda: mobilenet_v3_small(num_classes=10), (3, 64, 64)),
}


def _own(name: str, **options: object) -> nn.Module:
    network: nn.Module = make(Choice("model", name, options), PluginHost.discover().registry)((1, 28, 28), 10)
    return network


@pytest.fixture(scope="module")
def subjects() -> dict[str, Subject]:
    """The networks with the inputs that they are timed on."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: Subject(network().eval(), torch.rand((16, *shape), generator=generator))
        for name, (network, shape) in NETWORKS.items()
    }


@pytest.fixture(autouse=True)
def one_core() -> Iterator[None]:
    with bound_to_cores(THREADS), intra_op_threads(THREADS), torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def medians() -> dict[str, dict[str, list[float]]]:
    """Medians in ms by network and timer, one a round, filled by the tests."""
    return {name: {"harness": [], "torch": [], "pytest": []} for name in NETWORKS}


def by_harness(subject: Subject) -> float:
    options = LatencyOptions((1,), max_seconds=SECONDS, threads=THREADS)
    found = measure_latency({"one": subject}, CPU, options, {}, shuffle=random.Random(0))["one"]
    assert not isinstance(found, Exception)
    return found.results[0].median_ms


def by_torch(subject: Subject) -> float:
    names = {"call": subject.call, "batch": make_batches(subject.inputs, 1)[0]}
    timer = Timer("call(batch)", globals=names, num_threads=THREADS)
    return 1e3 * timer.blocked_autorange(min_run_time=SECONDS).median


@pytest.mark.slow
@pytest.mark.benchmark(max_time=SECONDS, min_rounds=5, warmup=True, warmup_iterations=5, disable_gc=True)
@pytest.mark.parametrize("turn", range(ROUNDS))
@pytest.mark.parametrize("name", NETWORKS)
def test_timers_in_turn(name, turn, subjects, medians, benchmark):
    subject = subjects[name]

    def by_pytest(subject: Subject) -> float:
        benchmark(subject.call, make_batches(subject.inputs, 1)[0])
        return 1e3 * benchmark.stats.stats.median

    timers = {"harness": by_harness, "torch": by_torch, "pytest": by_pytest}
    for timer in random.Random(turn).sample(list(timers), len(timers)):
        medians[name][timer].append(timers[timer](subject))


@pytest.mark.slow
def test_agreement(medians, capsys):
    with capsys.disabled():
        print()
        for name, found in medians.items():
            if not found["harness"]:
                pytest.skip("sums up the tests above")
            print(f"{name}: harness {statistics.median(found['harness']):.4f} ms, {len(found['harness'])} rounds")
            for other in ("torch", "pytest"):
                ratio = paired_ratio(found["harness"], found[other])
                overall = statistics.median(found["harness"]) / statistics.median(found[other])
                interval = "" if ratio.interval is None else " [{:.4f}, {:.4f}]".format(*ratio.interval)
                print(f"  / {other}: ratio of medians {overall:.4f}, median paired ratio {ratio.median:.4f}{interval}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet-8 28x28", "mobilenet_v3_small 64x64"])
def test_a_network_against_itself(name, subjects, capsys):
    network, inputs = subjects[name].call, subjects[name].inputs
    options = LatencyOptions((1,), max_seconds=SESSION_SECONDS, threads=THREADS)
    ratios, calls, known = [], [], 0
    for session in range(SESSIONS):
        pair = {arm: Subject(copy.deepcopy(network), inputs) for arm in ("reference", "arm")}
        found = measure_latency(pair, CPU, options, {"arm": "reference"}, shuffle=random.Random(session))
        result = found["arm"].results[0]
        ratios.append(result.ratio)
        calls.append(called_different(result.ratio, options.precision))
        known += result.stopped == "precision"
    excluded = sum(r.interval is not None and not r.low <= 1 <= r.high for r in ratios)
    away = [abs(ratio.median - 1) for ratio in ratios]
    widths = [(ratio.high - ratio.low) / 2 for ratio in ratios if ratio.interval is not None]
    with capsys.disabled():
        print(
            f"\n{name} against itself, {SESSIONS} sessions of {2 * SESSION_SECONDS} s at most: called different "
            f"{sum(call != 'same' for call in calls)}, interval excludes 1 in {excluded}; "
            f"|ratio - 1| median {statistics.median(away):.4f}, largest {max(away):.4f}; half interval median "
            f"{statistics.median(widths) if widths else float('nan'):.4f}; rounds median "
            f"{statistics.median(r.n for r in ratios):g}; known to {options.precision:.0%} in {known}"
        )
