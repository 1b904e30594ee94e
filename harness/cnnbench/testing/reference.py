"""The tiny reference trial: what techniques that act in training are tried on, through the stages themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from cnnbench.data import Splits
from cnnbench.devices import Device
from cnnbench.errors import NoEffect, Unsupported
from cnnbench.options import complete
from cnnbench.stages.build import Builder
from cnnbench.stages.contract import checked as held
from cnnbench.types import Choice, DataOptions, Recipe, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cnnbench.registry import Registry
    from cnnbench.stages.train import Procedure
    from cnnbench.testing.use import Situation

T = TypeVar("T")

NETWORKS: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, str]]] = {
    "plain": ("plain", {"depth": 3, "width": 4}, {}),
    "residual": ("resnet", {"depth": 8, "width": 4}, {}),
    "SELU": ("plain", {"depth": 3, "width": 4}, {"activation": "selu"}),
    "5x5": ("lenet", {}, {}),
}
"""Model, options, and techniques put into it, by a name for people; the first that a technique can act on is used."""
IN_RECIPE = ("optimizer", "schedule", "loss")
EPOCHS = 4
STEPS = 2
"""Of an epoch."""


def images_and_labels(situation: Situation, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random uint8 images [count, C, H, W] and int64 labels [count], the same in every call."""
    source = torch.Generator(device="cpu").manual_seed(seed)
    shape = (count, situation.channels, situation.height, situation.width)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=source, device="cpu")
    return images, torch.arange(count, device="cpu") % situation.classes


def batch(situation: Situation) -> tuple[torch.Tensor, torch.Tensor]:
    """Float images [N, C, H, W] in 0..1 and class probabilities [N, K], the same in every call."""
    images, labels = images_and_labels(situation, situation.batch)
    return images.float() / 255, torch.eye(situation.classes, device="cpu")[labels]


def splits(situation: Situation) -> Splits:
    """Images for a few steps, and for validation and test as many as a batch has."""
    size = max(situation.batch, 1)
    train, validation, test = (
        images_and_labels(situation, n, seed) for seed, n in enumerate((STEPS * size, size, size))
    )
    names = tuple(f"class {k}" for k in range(situation.classes))
    return Splits(*train, *validation, *test, names)


def settings(
    registry: Registry, situation: Situation, network: str, *techniques: Choice, dataset: Choice | None = None
) -> Settings:
    """The reference trial.

    Args:
        registry: where techniques come from.
        situation: image shape, batch size and number of classes.
        network: one of ``NETWORKS``.
        techniques: of any slot that training depends on; the recipe's take the place of the usual.
        dataset: complete; for those who load it.
    """
    model, options, inside = NETWORKS[network]
    recipe = {
        "optimizer": Choice("optimizer", "sgd", {"lr": 0.05, "momentum": 0.9}),
        "schedule": Choice("schedule", "cosine"),
        "loss": Choice("loss", "cross_entropy"),
        **{one.slot: one for one in techniques if one.slot in IN_RECIPE},
    }
    slots = {slot: (complete(Choice(slot, name), registry),) for slot, name in inside.items()}
    for one in techniques:
        if one.slot not in IN_RECIPE:
            slots[one.slot] = (complete(one, registry),)
    return Settings(
        dataset=dataset or Choice("dataset", "random"),
        data=DataOptions(),
        model=complete(Choice("model", model, options), registry),
        recipe=Recipe(
            epochs=EPOCHS,
            batch_size=max(situation.batch, 1),
            optimizer=complete(recipe["optimizer"], registry),
            schedule=complete(recipe["schedule"], registry),
            loss=complete(recipe["loss"], registry),
        ),
        techniques=slots,
    )


def builder(
    registry: Registry, situation: Situation, network: str, *techniques: Choice, checked: bool = True
) -> Builder:
    """Builds the reference trial on random images.

    Args:
        registry: where techniques come from.
        situation: image shape, batch size and number of classes.
        network: one of ``NETWORKS``.
        techniques: as of ``settings``.
        checked: hold what techniques hand back to their contracts.
    """
    chosen = settings(registry, situation, network, *techniques)
    return Builder(chosen, registry, splits(situation), Device("cpu"), checked=checked)


def first_network(situation: Situation, attempt: Callable[[str], T]) -> T:
    """What ``attempt`` returns on the situation's network, or on the first that it can act on.

    Raises:
        Unsupported, NoEffect: it can act on none; the first one's.
    """
    if situation.layers:
        return attempt(situation.layers)
    refused: Exception | None = None
    for network in NETWORKS:
        try:
            return attempt(network)
        except (Unsupported, NoEffect) as error:
            refused = refused or error
    assert refused is not None
    raise refused


def procedure(registry: Registry, situation: Situation, **instances: Any) -> Procedure:
    """How the reference trial trains, with instances of techniques that are held to their contracts.

    Args:
        registry: where the other techniques come from.
        situation: image shape, batch size and number of classes.
        instances: fields of ``Procedure``.
    """
    plain = builder(registry, situation, "plain", checked=False).procedure(nn.Identity())
    return held(replace(plain, **instances))
