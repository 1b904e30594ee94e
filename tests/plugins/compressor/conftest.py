"""A small residual network trained on the digits, and a context with a plain training loop."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torchvision.models.resnet import BasicBlock

from cnnbench.types import Batch, Choice, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cnnbench.slots import Observer


def small_resnet() -> nn.Sequential:
    """Two residual blocks, of which the second strides; 1-channel input of any size, 10 classes."""
    shortcut = nn.Sequential(nn.Conv2d(16, 32, 1, 2, bias=False), nn.BatchNorm2d(32))
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        BasicBlock(16, 16),
        BasicBlock(16, 32, 2, shortcut),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def seeded_resnet() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return small_resnet()


@dataclass
class Context:
    """A compression context of tensors in memory, with SGD and a cosine schedule."""

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    num_classes: int = 10
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(1))
    trained_epochs: list[int] = field(default_factory=list)

    @property
    def example(self) -> torch.Tensor:
        return self.train_images[:1]

    def calibration(self, count: int) -> torch.Tensor:
        return self.train_images[:count]

    def build(self, model: Choice) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            return nn.Sequential(nn.Flatten(), nn.Linear(64, model.options["width"]), nn.Linear(8, 10))

    def train(
        self,
        model: nn.Module,
        *,
        epochs: int,
        learning_rate: float | None = None,
        loss: Callable[[Batch, torch.Tensor], torch.Tensor] | None = None,
        observers: Sequence[Observer] = (),
    ) -> list[Progress]:
        self.trained_epochs.append(epochs)
        order = torch.Generator().manual_seed(3)
        rate = 0.1 if learning_rate is None else learning_rate
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
        batches = len(self.train_images) // 64
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
        history = []
        for epoch in range(epochs):
            model.train()
            for observer in observers:
                observer.before_epoch(model, epoch, epochs)
            for index in torch.randperm(len(self.train_images), generator=order)[: batches * 64].view(-1, 64):
                images, targets = self.train_images[index], F.one_hot(self.train_labels[index], 10).float()
                logits = model(images)
                batch = Batch((images + 1) / 2, images, targets)
                value = loss(batch, logits) if loss else F.cross_entropy(logits, targets)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                schedule.step()
                for observer in observers:
                    observer.after_step(model, 0)
            model.eval()
            progress = Progress(epoch, epochs, batches * (epoch + 1), value.item(), None, None, rate)
            history.append(progress)
            stops = [observer.after_epoch(model, progress) for observer in observers]
            if any(stops):
                break
        return history

    def initial(self) -> nn.Module:
        """The network of the fixture ``model`` before its training."""
        return seeded_resnet()

    def input(self, choice: Choice) -> nn.Module:
        """Normalization to another range than the context's own."""
        return nn.Identity()

    def recalibrate(self, model: nn.Module) -> None:
        torch.optim.swa_utils.update_bn(self.train_images.split(256), model)
        model.eval()

    def validation_accuracy(self, model: nn.Module) -> float:
        with torch.no_grad():
            return (model(self.test_images).argmax(1) == self.test_labels).float().mean().item()


@pytest.fixture(scope="session")
def _context() -> Context:
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    labels = torch.tensor(digits.target)
    return Context(images[:1280], labels[:1280], images[1280:], labels[1280:])


@pytest.fixture
def context(_context: Context) -> Context:
    """A context that no other test has drawn from or trained with."""
    return replace(_context, generator=torch.Generator().manual_seed(1), trained_epochs=[])


@pytest.fixture(scope="session")
def _trained(_context: Context) -> nn.Sequential:
    model = seeded_resnet()
    _context.train(model, epochs=6)
    return model


@pytest.fixture
def model(_trained: nn.Sequential) -> nn.Sequential:
    """The trained network, to be changed at will."""
    return copy.deepcopy(_trained)


@pytest.fixture
def fresh() -> nn.Sequential:
    """An untrained network whose batch norms have statistics that matter."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = small_resnet().train()
        with torch.no_grad():
            for _ in range(3):
                model(torch.randn(16, 1, 8, 8) * 2 + 1)
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.uniform_(-0.5, 0.5)
        return model.eval()
