"""Optimizers: a few steps of a tiny network, part of which is frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from cnnbench.seeds import Streams
from cnnbench.testing.compare import copied
from cnnbench.testing.reference import batch, builder, procedure
from cnnbench.testing.use import PLAIN, Situation, Use

if TYPE_CHECKING:
    from torch import nn

    from cnnbench.testing.subject import Subject

situations = (PLAIN,)
STEPS = 3


def fresh_model(subject: Subject, situation: Situation) -> nn.Module:
    """A tiny network in training mode; its last bias is frozen, as transfer learning freezes layers."""
    model = builder(subject.registry, situation, "plain").model(Streams(0)).train()
    list(model.parameters())[-1].requires_grad_(False)
    return model


def step(model: nn.Module, optimizer: torch.optim.Optimizer, situation: Situation) -> None:
    """One step on the reference batch."""
    images, targets = batch(situation)
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(model(images), targets).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def made(subject: Subject, technique: Any, situation: Situation, model: nn.Module) -> torch.optim.Optimizer:
    """The technique's optimizer of a model."""
    return procedure(subject.registry, situation, optimizer=technique).optimizer(model)


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:
    """A few steps; nothing is drawn, so only a technique that draws for itself differs between two uses."""
    model = fresh_model(subject, situation)
    before = copied(dict(model.named_parameters()))
    with Streams(draw).default_generator("dropout"):
        optimizer = made(subject, technique, situation, model)
        for _ in range(STEPS):
            step(model, optimizer, situation)
    result = copied(dict(model.named_parameters()))
    return Use(given={}, before={}, result=result, plain=before)
