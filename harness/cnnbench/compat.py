"""Which techniques can act on which models: each is tried for two training steps on random images.

What is asked is whether a technique finds something to do and whether the model still trains, not whether it helps.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch

from cnnbench.data import Splits
from cnnbench.errors import NoEffect, Unsupported, UsageError
from cnnbench.options import complete, make, options_of
from cnnbench.registry import nearest
from cnnbench.seeds import Streams
from cnnbench.stages.build import Builder
from cnnbench.stages.rehearse import rehearse
from cnnbench.types import Choice, DataOptions, Recipe, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cnnbench.devices import Device
    from cnnbench.options import Option
    from cnnbench.registry import Registry

SLOTS = (
    *("architecture", "convolution", "pooling", "norm", "activation", "initializer", "regularizer", "strategy"),
    "compressor",
)
"""Slots whose techniques meet the model; the others see images and labels alone."""

Status = Literal["works", "in part", "no effect", "unsupported", "fails"]
STATUSES: tuple[Status, ...] = get_args(Status)
IMAGES = 8
"""Training images: two steps of four."""


@dataclass(frozen=True)
class Verdict:
    """What became of one technique on one model.

    Attributes:
        model: as the user named it.
        technique: with its options.
        status: ``in part`` means that functional calls of the same kind stay as they were.
        reason: why it does not work, or what stays; empty where it works.
    """

    model: str
    technique: Choice
    status: Status
    reason: str = ""


def parse_model(text: str, registry: Registry) -> Choice:
    """A model from a word of the command line: a model's name, torchvision's, or ``package.module:callable``.

    Raises:
        UsageError: there is no such model.
    """
    if ":" in text:
        return complete(Choice("model", "import", {"target": text}), registry)
    if text in registry.names("model"):
        return complete(Choice("model", text), registry)
    from torchvision.models import list_models

    architectures = list_models()
    if text not in architectures:
        names = [*registry.names("model"), *architectures]
        raise UsageError(f"unknown model {text!r}: {nearest(text, names) or 'cnnbench list model has ours'}")
    return complete(Choice("model", "torchvision", {"arch": text}), registry)


def candidates(registry: Registry, slots: Sequence[str] = SLOTS) -> Iterator[Choice]:
    """Techniques of these slots with their defaults; a student or teacher that one asks for is a small network.

    Where the defaults don't do, a dataset that one may be told of is a few generated images. Those that need anything
    else of the user's are left out.
    """
    small = complete(Choice("model", "plain", {"depth": 3, "width": 8}), registry)
    for slot in slots:
        for name in registry.names(slot):
            options = options_of(registry.get(slot, name).cls)
            required = [key for key, option in options.items() if option.required]
            if any(options[key].slot != "model" for key in required):
                continue
            choice = complete(Choice(slot, name, dict.fromkeys(required, small)), registry)
            yield choice if _valid(choice, registry) else _with_images(choice, options, registry)


def _valid(choice: Choice, registry: Registry) -> bool:
    try:
        make(choice, registry)
    except UsageError:
        return False
    return True


def _with_images(choice: Choice, options: Mapping[str, Option], registry: Registry) -> Choice:
    drawn = complete(Choice("dataset", "shapes", {"train_images": 40, "test_images": 40}), registry)
    datasets = {key: drawn for key, option in options.items() if option.slot == "dataset"}
    return complete(Choice(choice.slot, choice.name, {**choice.options, **datasets}), registry)


def try_technique(
    technique: Choice, model: Choice, label: str, splits: Splits, registry: Registry, device: Device
) -> Verdict:
    """Two training steps with one technique, then its compression where it is a compressor.

    Strategies get two epochs: what they do often comes after the first.
    """
    epochs = 2 if technique.slot == "strategy" else 1
    settings = Settings(
        dataset=Choice("dataset", "random"),
        data=DataOptions(),
        model=model,
        recipe=Recipe(
            epochs=epochs,
            batch_size=IMAGES // 2,
            optimizer=complete(Choice("optimizer", "sgd", {"lr": 0.01}), registry),
            schedule=complete(Choice("schedule", "constant"), registry),
            loss=complete(Choice("loss", "cross_entropy"), registry),
        ),
        techniques={technique.slot: (technique,)},
    )
    notes: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries, about each of some hundred models
            rehearse(Builder(settings, registry, splits, device), Streams(0), notes, epochs)
    except NoEffect as error:
        return Verdict(label, technique, "no effect", str(error))
    except Unsupported as error:
        return Verdict(label, technique, "unsupported", str(error))
    except Exception as error:  # noqa: BLE001 - a technique and a model are others' code: what comes out is the answer
        return Verdict(label, technique, "fails", f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")
    reached = [note for note in notes if note.startswith(f"{technique.slot}: could not reach")]
    return Verdict(label, technique, "in part" if reached else "works", "; ".join(reached))


def random_splits(image_shape: tuple[int, int, int], classes: int) -> Splits:
    """A few random images of a shape, the same in every run.

    Args:
        image_shape: channels, height, width.
        classes: number of classes.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, *image_shape), dtype=torch.uint8, generator=generator)
    labels = torch.arange(IMAGES) % classes
    names = tuple(f"class {k}" for k in range(classes))
    return Splits(images, labels, images, labels, images, labels, names)
