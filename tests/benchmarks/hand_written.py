"""The script that a good engineer would write by hand, in plain PyTorch: what the harness's speed is held against.

``python hand_written.py digits --output cells.csv`` trains a small ResNet in four ways and compresses the first of them
in six, for each seed. A Dataset with torchvision transforms and a DataLoader (in the main process: with two workers
it was slower), one training for each cell, one process, default threads, latency by a loop, one row a cell in a CSV
file. Nothing in it is slower than need be, and nothing in it knows of the harness.
"""

from __future__ import annotations

import argparse
import copy
import csv
import io
import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
import torch_pruning
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.nn.utils import prune
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets, transforms

if TYPE_CHECKING:
    from collections.abc import Callable

FIELDS = ("arm", "seed", "accuracy", "f1_macro", "params", "size_bytes", "latency_b1_ms", "latency_b32_ms")


@dataclass(frozen=True)
class Task:
    """One dataset and the budget that is spent on it."""

    size: int
    width: int
    epochs: int
    finetune_epochs: int
    padding: int
    mirror: bool
    train_size: int | None = None
    test_size: int | None = None
    batch_size: int = 64
    learning_rate: float = 0.1
    finetune_rate: float = 0.01


TASKS = {
    "digits": Task(size=8, width=8, epochs=12, finetune_epochs=2, padding=1, mirror=False),
    "fashion-mnist": Task(
        size=28, width=16, epochs=4, finetune_epochs=1, padding=2, mirror=True, train_size=1500, test_size=1000
    ),
}


class Digits(Dataset):
    """scikit-learn's digits as 8-bit images."""

    def __init__(self, train: bool, transform: Callable[[Any], torch.Tensor]) -> None:
        digits = load_digits()
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        parts = train_test_split(images, digits.target, test_size=355, stratify=digits.target, random_state=0)
        self.images, self.targets = (parts[0], parts[2]) if train else (parts[1], parts[3])
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.targets[index])


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.act1 = activation()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.act2 = activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        return self.act2(y + self.shortcut(x))


def resnet8(width: int, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        activation(),
        Block(width, width, 1, activation),
        Block(width, 2 * width, 2, activation),
        Block(2 * width, 4 * width, 2, activation),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, 10),
    )


def load(name: str, root: Path, task: Task, seed: int) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Training, validation and test batches."""
    make: Callable[..., Any] = Digits if name == "digits" else partial(datasets.FashionMNIST, root)
    raw = make(train=True, transform=None)
    pixels, targets = np.asarray(raw.images if name == "digits" else raw.data), np.asarray(raw.targets)
    normalize = [transforms.ToTensor(), transforms.Normalize((pixels.mean() / 255,), (pixels.std() / 255,))]
    augment = [transforms.RandomCrop(task.size, padding=task.padding)]
    if task.mirror:
        augment.append(transforms.RandomHorizontalFlip())
    evaluation = transforms.Compose(normalize)
    train = make(train=True, transform=transforms.Compose([*augment, *normalize]))
    plain, test = make(train=True, transform=evaluation), make(train=False, transform=evaluation)
    rows = np.arange(len(train))
    if task.train_size is not None:
        rows, _ = train_test_split(rows, train_size=task.train_size, stratify=targets, random_state=0)
    kept, held_out = train_test_split(rows, test_size=0.1, stratify=targets[rows], random_state=seed)
    if task.test_size is not None:
        own = np.asarray(test.targets)
        chosen, _ = train_test_split(np.arange(len(own)), train_size=task.test_size, stratify=own, random_state=0)
        test = Subset(test, chosen)
    return (
        DataLoader(Subset(train, kept), task.batch_size, shuffle=True),
        DataLoader(Subset(plain, held_out), 500),
        DataLoader(test, 500),
    )


def mixup(images: torch.Tensor, labels: torch.Tensor, alpha: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    """As the authors' code does it: one blend for the batch."""
    share = float(np.random.beta(alpha, alpha))
    partners = torch.randperm(len(images))
    targets = F.one_hot(labels, 10).float()
    mixed = share * images + (1 - share) * images[partners]
    return mixed, share * targets + (1 - share) * targets[partners]


def train(
    model: nn.Module,
    batches: DataLoader,
    validation: DataLoader,
    epochs: int,
    rate: float,
    *,
    smoothing: float = 0.0,
    mix: bool = False,
    teacher: nn.Module | None = None,
) -> None:
    criterion = nn.CrossEntropyLoss(label_smoothing=smoothing)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(batches))
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for images, labels in batches:
            inputs, targets = mixup(images, labels) if mix else (images, labels)
            logits = model(inputs)
            loss = criterion(logits, targets) if teacher is None else distilled(logits, targets, inputs, teacher)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        accuracy = accuracy_score(*predict(model, validation))
        print(f"  epoch {epoch + 1}/{epochs}: loss {total / len(batches):.3f}, validation accuracy {accuracy:.3f}")


def distilled(
    logits: torch.Tensor, labels: torch.Tensor, inputs: torch.Tensor, teacher: nn.Module, t: float = 4.0
) -> torch.Tensor:
    """Hinton et al. 2015, nine parts soft and one part hard."""
    with torch.no_grad():
        taught = teacher(inputs)
    soft = F.kl_div(F.log_softmax(logits / t, 1), F.softmax(taught / t, 1), reduction="batchmean") * t * t
    return 0.9 * soft + 0.1 * F.cross_entropy(logits, labels)


@torch.no_grad()
def predict(model: nn.Module, batches: DataLoader) -> tuple[np.ndarray, np.ndarray]:
    model.eval()
    found = [(labels, model(images).argmax(1)) for images, labels in batches]
    labels, predictions = zip(*found, strict=True)
    return torch.cat(labels).numpy(), torch.cat(predictions).numpy()


def layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def prune_weights(model: nn.Module, task: Task, batches: DataLoader, validation: DataLoader, share: float) -> nn.Module:
    parameters = [(layer, "weight") for layer in layers(model)]
    prune.global_unstructured(parameters, pruning_method=prune.L1Unstructured, amount=share)
    train(model, batches, validation, task.finetune_epochs, task.finetune_rate)
    for layer, name in parameters:
        prune.remove(layer, name)
    return model


def prune_filters(model: nn.Module, task: Task, batches: DataLoader, validation: DataLoader) -> nn.Module:
    model.eval()
    torch_pruning.pruner.MagnitudePruner(
        model,
        torch.zeros(1, 1, task.size, task.size),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=1),
        pruning_ratio=0.5,
        ignored_layers=[model[-1]],
    ).step()
    train(model, batches, validation, task.finetune_epochs, task.finetune_rate)
    return model


def distil(teacher: nn.Module, task: Task, batches: DataLoader, validation: DataLoader) -> nn.Module:
    student = resnet8(task.width // 2)
    train(student, batches, validation, task.epochs, task.learning_rate, teacher=teacher.eval())
    return student


@torch.no_grad()
def round_weights(model: nn.Module, bits: int = 8) -> nn.Module:
    most = 2 ** (bits - 1) - 1
    for layer in layers(model):
        scale = layer.weight.abs().amax(tuple(range(1, layer.weight.dim())), keepdim=True) / most
        layer.weight.copy_((layer.weight / scale).round().clamp(-most - 1, most) * scale)
    return model


def size_bytes(model: nn.Module) -> int:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.getbuffer().nbytes


@torch.inference_mode()
def latency_ms(model: nn.Module, images: torch.Tensor, calls: int, warmup: int = 10) -> float:
    model.eval()
    for _ in range(warmup):
        model(images)
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        model(images)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def cell(arm: str, seed: int, name: str, root: Path, task: Task) -> dict[str, Any]:
    """One row of the table, from data to figures."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    batches, validation, test = load(name, root, task, seed)
    model = resnet8(task.width, nn.SiLU if arm == "SiLU" else nn.ReLU)
    how = {"mixup": {"mix": True}, "label smoothing": {"smoothing": 0.1}}.get(arm, {})
    train(model, batches, validation, task.epochs, task.learning_rate, **how)
    match arm:
        case "prune 50 %":
            model = prune_weights(model, task, batches, validation, 0.5)
        case "prune 90 %":
            model = prune_weights(model, task, batches, validation, 0.9)
        case "half the filters":
            model = prune_filters(model, task, batches, validation)
        case "distil to half the width":
            model = distil(model, task, batches, validation)
        case "8-bit weights":
            model = round_weights(copy.deepcopy(model))
        case "fold batch norm":
            model = fuse(model.eval())
    labels, predictions = predict(model, test)
    images = next(iter(test))[0]
    return {
        "arm": arm,
        "seed": seed,
        "accuracy": accuracy_score(labels, predictions),
        "f1_macro": f1_score(labels, predictions, average="macro", zero_division=0),
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "size_bytes": size_bytes(model),
        "latency_b1_ms": latency_ms(model, images[:1], calls=100),
        "latency_b32_ms": latency_ms(model, images[:32], calls=30),
    }


ARMS = (
    "baseline",
    "mixup",
    "label smoothing",
    "SiLU",
    "prune 50 %",
    "prune 90 %",
    "half the filters",
    "8-bit weights",
    "fold batch norm",
    "distil to half the width",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", choices=TASKS)
    parser.add_argument("--root", type=Path, default=Path("data"), help="where FashionMNIST/raw lies")
    parser.add_argument("--output", type=Path, default=Path("cells.csv"))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    with given.output.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, FIELDS)
        table.writeheader()
        for seed in range(given.seeds):
            for arm in ARMS:
                print(f"{arm}, seed {seed}")
                table.writerow(cell(arm, seed, given.dataset, given.root, TASKS[given.dataset]))
                file.flush()


if __name__ == "__main__":
    main()
