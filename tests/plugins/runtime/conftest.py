"""A small network and what a runtime is given beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BATCH_SIZES = (1, 3, 8)


@dataclass
class FakeContext:
    """As ``slots.ServingContext`` has it."""

    images: torch.Tensor
    folder: Path
    threads: int = 1
    batch_sizes: tuple[int, ...] = BATCH_SIZES

    @property
    def example(self) -> torch.Tensor:
        return self.images[: self.batch_sizes[0]]

    def calibration(self, count: int) -> torch.Tensor:
        return self.images[:count]


class Net(nn.Module):
    """Convolutions (full, depthwise, strided, 1x1), batch norms, a residual sum, gates, a linear layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.down = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU6())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.depthwise(x)
        return self.head(self.down(x + y * self.gate(y)))


def _network(channels: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(channels)
        model = Net(channels)
        for _ in range(5):  # statistics that are not the initial ones
            model(torch.randn(16, channels, 29, 27))
    return model.eval()


@pytest.fixture
def network() -> Callable[[int], nn.Module]:
    return _network


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., FakeContext]:
    def make(channels: int, **changes: object) -> FakeContext:
        generator = torch.Generator().manual_seed(7)
        contrast = 3 * torch.rand(64, 1, 1, 1, generator=generator)
        return FakeContext(contrast * torch.randn(64, channels, 29, 27, generator=generator), tmp_path, **changes)

    return make


@pytest.fixture
def assert_serves_alike() -> Callable[..., None]:
    """Check a runtime's outputs against the model's own, at every batch size and twice."""

    def check(runtime: Callable, model: nn.Module, context: FakeContext) -> None:
        inputs = context.images
        with torch.inference_mode():
            expected = model(inputs)
        assert float(expected.std(dim=0).min()) > 0.01, "a network whose outputs differ, or nothing is tested"
        call = runtime(model, context)
        served = {size: call(inputs[:size]) for size in context.batch_sizes}
        for size in context.batch_sizes:
            again = call(inputs[-size:].contiguous())
            torch.testing.assert_close(served[size], expected[:size], rtol=1e-4, atol=1e-5)  # not overwritten since
            torch.testing.assert_close(again, expected[-size:], rtol=1e-4, atol=1e-5)
        assert call.size_bytes > 4 * sum(p.numel() for p in model.parameters())
        call.close()
        with pytest.raises(RuntimeError, match="closed"):
            call(inputs[:1])

    return check
