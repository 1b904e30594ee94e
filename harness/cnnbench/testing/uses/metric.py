"""Metrics: class probabilities of a few images."""

from __future__ import annotations

import math
import numbers
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from cnnbench.errors import BrokenContract
from cnnbench.testing.compare import copied
from cnnbench.testing.use import ONE, PLAIN, Situation, Use

if TYPE_CHECKING:
    from cnnbench.testing.subject import Subject

situations = (replace(PLAIN, batch=40), ONE)


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:  # noqa: ARG001 - as all slots have it
    """Measure a classifier that is right more often than not."""
    source = torch.Generator(device="cpu").manual_seed(0)
    labels = torch.randint(situation.classes, (situation.batch,), generator=source)
    logits = torch.randn(situation.batch, situation.classes, generator=source, dtype=torch.float64)
    logits[torch.arange(situation.batch), labels] += 1
    given = {"probabilities": logits.softmax(1), "labels": labels}
    before = copied(given)
    value = technique(given["probabilities"], given["labels"])
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise BrokenContract(f"{subject.name} returned {value!r:.60}, expected a finite number")
    return Use(given=given, before=before, result=float(value))
