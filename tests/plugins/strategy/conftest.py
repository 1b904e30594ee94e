"""Real training runs, tiny: brightness tells three classes of noise apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnbench.data import Splits
from cnnbench.devices import Device
from cnnbench.seeds import Streams
from cnnbench.stages.train import Procedure, Run

CLASSES = 3
MakeRun = Callable[..., Run]


def splits(count: int, size: int, seed: int = 1) -> Splits:
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randint(0, CLASSES, (n,), generator=generator) for n in (count, 20, 10)]
    tensors = []
    for labels in parts:
        noise = torch.randint(0, 120, (len(labels), 1, size, size), generator=generator)
        tensors += [(noise + 60 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels]
    return Splits(*tensors, class_names=("a", "b", "c"))


def network(streams: Streams) -> nn.Module:
    with streams.default_generator("init"):
        return nn.Sequential(
            *(nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
            *(nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)),
        )


def cosine(step: int, total: int) -> float:
    return (1 + math.cos(math.pi * step / total)) / 2


@pytest.fixture
def make_run() -> MakeRun:
    """``make_run(epochs=3, count=48, size=8, build=..., elsewhere=..., **procedure)``: three steps an epoch."""

    def make(
        *,
        epochs: int = 3,
        count: int = 48,
        size: int = 8,
        build: Callable[[Streams], nn.Module] = network,
        elsewhere: Callable[..., Any] | None = None,
        **changes: Any,
    ) -> Run:
        how = {
            "splits": splits(count, size),
            "input": nn.Identity(),
            "augmentations": [],
            "regularizers": [],
            "optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
            "schedule": cosine,
            "loss": F.cross_entropy,
            "batch_size": 16,
            "precision": "fp32",
            "channels_last": False,
            "device": Device("cpu"),
            **changes,
        }
        return Run(build, Procedure(epochs=epochs, **how), Streams(0), elsewhere or _nowhere)

    return make


def _nowhere(*_: object) -> Run:
    raise AssertionError("this strategy asks for no other dataset")
