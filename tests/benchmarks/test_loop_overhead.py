"""The price of the training loop's generality: ``fit`` against a bare PyTorch loop, interleaved."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F

from cnnbench.data import Splits
from cnnbench.devices import Device
from cnnbench.options import make
from cnnbench.plugins import PluginHost
from cnnbench.seeds import Streams
from cnnbench.stages.train import Procedure, fit
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from cnnbench.registry import Registry

EPOCHS = 2
BATCH = 64
RATE = 0.1
ROUNDS = int(os.environ.get("CNNBENCH_BENCHMARK_ROUNDS", "15"))
"""Pairs of runs; more of them narrow the ratio on a busy machine."""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return PluginHost.discover().registry


def random_splits(count: int, size: int) -> Splits:
    """Gray images of noise, ten classes, no validation split."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return Splits(images, labels, images[:0], labels[:0], images[:1], labels[:1], tuple("0123456789"))


def bare_loop(model: nn.Module, splits: Splits, streams: Streams, memory_format: torch.memory_format) -> None:
    """What one would write by hand: the same tensors, order, optimizer and schedule, and nothing else."""
    images, labels = splits.train_images, splits.train_labels
    model.to(memory_format=memory_format)
    steps = EPOCHS * -(-len(images) // BATCH)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = streams.generator("order")
    for _ in range(EPOCHS):
        model.train()
        for batch in torch.randperm(len(images), generator=order).split(BATCH):
            x = images[batch].float().div_(255).contiguous(memory_format=memory_format)
            loss = F.cross_entropy(model(x), labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


@pytest.mark.slow
@pytest.mark.parametrize(("count", "size"), [(1280, 8), (640, 28)], ids=["digits-8x8", "28x28"])
def test_overhead_of_fit_over_a_bare_loop(registry, count, size, capsys):
    device = Device("cpu")
    streams = Streams(0)
    splits = random_splits(count, size)
    how = Procedure(
        splits=splits,
        input=torch.nn.Sequential(),
        augmentations=[],
        regularizers=[],
        optimizer=make(Choice("optimizer", "sgd", {"lr": RATE, "momentum": 0.9}), registry),
        schedule=make(Choice("schedule", "cosine"), registry),
        loss=make(Choice("loss", "cross_entropy"), registry),
        epochs=EPOCHS,
        batch_size=BATCH,
        precision="fp32",
        channels_last=device.channels_last_helps,
        device=device,
    )
    spec = make(Choice("model", "resnet", {"depth": 8, "width": 16}), registry)

    def model() -> nn.Module:
        with streams.default_generator("init"):
            built: nn.Module = spec(splits.image_shape, splits.num_classes)
        return built

    def bare(trained: nn.Module) -> None:
        bare_loop(trained, splits, streams, how.memory_format)

    def harness(trained: nn.Module) -> None:
        fit(trained, how, streams)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ours, theirs = model(), model()
        harness(ours)  # the first round warms up and shows that both do the same work
        bare(theirs)
        for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-2, atol=1e-3)
        times: dict[str, list[float]] = {"bare": [], "fit": []}
        for index in range(ROUNDS):
            pair = [("bare", bare), ("fit", harness)]
            for name, run in pair if index % 2 else reversed(pair):  # neither always comes first
                fresh = model()
                times[name].append(seconds(lambda run=run, fresh=fresh: run(fresh)))
    finally:
        torch.set_num_threads(threads)
    medians = {name: statistics.median(values) for name, values in times.items()}
    paired = statistics.median(b / a for a, b in zip(times["bare"], times["fit"], strict=True))
    with capsys.disabled():
        print(
            f"\n{count} images {size}x{size}, {EPOCHS} epochs, batch {BATCH}, {ROUNDS} pairs: "
            f"bare {medians['bare']:.3f} s, fit {medians['fit']:.3f} s, ratio of medians "
            f"{medians['fit'] / medians['bare']:.3f}, median of paired ratios {paired:.3f}"
        )
