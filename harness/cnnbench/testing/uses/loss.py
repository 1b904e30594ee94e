"""Losses: logits and class probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cnnbench.testing.compare import copied
from cnnbench.testing.reference import procedure
from cnnbench.testing.use import ONE, PLAIN, Situation, Use

if TYPE_CHECKING:
    from cnnbench.testing.subject import Subject

situations = (PLAIN, ONE)


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:  # noqa: ARG001 - as all slots have it
    """The loss of one batch, with soft targets, and its gradient."""
    loss = procedure(subject.registry, situation, loss=technique).loss
    source = torch.Generator(device="cpu").manual_seed(0)
    shape = (situation.batch, situation.classes)
    logits = torch.randn(shape, generator=source, device="cpu").requires_grad_()
    targets = torch.rand(shape, generator=source, device="cpu").softmax(1)
    given = {"logits": logits, "targets": targets}
    before = copied(given)
    value = loss(logits, targets)
    (gradient,) = torch.autograd.grad(value, logits)
    return Use(given=given, before=before, result={"loss": value.detach(), "gradients": gradient})
