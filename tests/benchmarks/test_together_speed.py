"""Seeds stacked against one by one, and compiled steps against eager ones, on whatever device is there."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cnnbench.data import Splits
from cnnbench.devices import resolve
from cnnbench.errors import Unsupported
from cnnbench.options import make
from cnnbench.plugins import PluginHost
from cnnbench.seeds import Streams
from cnnbench.stages.compiled import check_compiler
from cnnbench.stages.stacked import Seat, fit_stacked, obstacle
from cnnbench.stages.train import Procedure, fit
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnbench.registry import Registry

ROUNDS = int(os.environ.get("CNNBENCH_BENCHMARK_ROUNDS", "3"))
SEEDS = int(os.environ.get("CNNBENCH_BENCHMARK_SEEDS", "5"))
CASES = {
    "resnet-8x4, 8x8, batch 8": ({"depth": 8, "width": 4}, 8, 8, 320),
    "resnet-8x4, 8x8, batch 64": ({"depth": 8, "width": 4}, 8, 64, 1280),
    "resnet-8x16, 8x8, batch 64": ({"depth": 8, "width": 16}, 8, 64, 640),
    "resnet-8x16, 28x28, batch 64": ({"depth": 8, "width": 16}, 28, 64, 192),
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return PluginHost.discover().registry


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_seats(registry: Registry, case: str, seeds: int, **changes: Any) -> list[Seat]:
    options, size, batch, count = CASES[case]
    device = resolve("auto")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, generator=generator).to(device.torch)
    labels = torch.randint(0, 10, (count,), generator=generator).to(device.torch)
    splits = Splits(images, labels, images[:0], labels[:0], images[:1], labels[:1], tuple("0123456789"))
    seats = []
    for seed in range(seeds):
        how = Procedure(
            splits=splits,
            input=torch.nn.Sequential(),
            augmentations=[make(Choice("augmentation", "translate", {}), registry)],
            regularizers=[],
            optimizer=make(Choice("optimizer", "sgd", {"lr": 0.05}), registry),
            schedule=make(Choice("schedule", "cosine"), registry),
            loss=make(Choice("loss", "cross_entropy"), registry),
            **{
                "epochs": 1,
                "batch_size": batch,
                "precision": "fp32",
                "channels_last": device.channels_last_helps,
                "device": device,
                **changes,
            },
        )
        with Streams(seed).default_generator("init"):
            model = make(Choice("model", "resnet", options), registry)(splits.image_shape, 10).to(device.torch)
        seats.append(Seat(model, how, Streams(seed)))
    return seats


def one_by_one(seats: list[Seat]) -> None:
    for seat in seats:
        fit(seat.model, seat.how, seat.streams)


def times_of(ways: dict[str, Callable[[], Callable[[], object]]]) -> dict[str, tuple[float, float]]:
    """Medians of wall and CPU seconds of each way, in turns after one of each that warms up."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name in ways if number % 2 else reversed(ways):
            run = ways[name]()
            resolve("auto").synchronize()
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            resolve("auto").synchronize()
            if number:
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: tuple(map(statistics.median, zip(*pairs, strict=True))) for name, pairs in taken.items()}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_stacked_against_one_by_one(registry, case, capsys):
    assert obstacle(make_seats(registry, case, SEEDS)) is None

    def stacked() -> Callable[[], object]:
        seats = make_seats(registry, case, SEEDS)
        return lambda: fit_stacked(seats)

    def apart() -> Callable[[], object]:
        seats = make_seats(registry, case, SEEDS)
        return lambda: one_by_one(seats)

    found = times_of({"one by one": apart, "stacked": stacked})
    (wall, cpu), (other_wall, other_cpu) = found["one by one"], found["stacked"]
    with capsys.disabled():
        print(
            f"\n{case}, {SEEDS} seeds on {resolve('auto').describe()}: one by one {cpu:.2f} s of CPU, "
            f"stacked {other_cpu:.2f}, ratio of CPU {other_cpu / cpu:.2f}, of wall {other_wall / wall:.2f}"
        )


@pytest.mark.slow
@pytest.mark.timeout(1800)  # compiling is most of it
@pytest.mark.parametrize("case", CASES)
def test_compiled_against_eager(registry, case, capsys):
    """The time of one epoch by the difference of a long and a short training, which leaves compiling out."""
    try:
        check_compiler(resolve("auto"))
    except Unsupported as error:
        pytest.skip(str(error))

    def training(epochs: int, *, compiled: bool) -> Callable[[], Callable[[], object]]:
        def ready() -> Callable[[], object]:
            seats = make_seats(registry, case, 1, epochs=epochs, compiled=compiled)
            return lambda: one_by_one(seats)

        return ready

    ways = {(kind, n): training(n, compiled=kind == "compiled") for kind in ("eager", "compiled") for n in (1, 6)}
    found = times_of({f"{kind} {n}": way for (kind, n), way in ways.items()})
    wall, cpu = (
        {kind: (found[f"{kind} 6"][i] - found[f"{kind} 1"][i]) / 5 for kind in ("eager", "compiled")} for i in (0, 1)
    )
    compiling = found["compiled 1"][1] - cpu["compiled"]
    with capsys.disabled():
        print(
            f"\n{case} on {resolve('auto').describe()}: epoch eager {cpu['eager']:.3f} s of CPU, "
            f"compiled {cpu['compiled']:.3f}, ratio of CPU {cpu['compiled'] / cpu['eager']:.2f}, "
            f"of wall {wall['compiled'] / wall['eager']:.2f}; compiling {compiling:.1f} s of CPU, its cache being warm"
        )
