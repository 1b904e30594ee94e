"""Augmentations: a batch of images with their targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cnnbench.testing.compare import copied
from cnnbench.testing.reference import batch, procedure
from cnnbench.testing.use import EMPTY, GRAY, ODD, ONE, PLAIN, Situation, Use

if TYPE_CHECKING:
    from cnnbench.testing.subject import Subject

situations = (PLAIN, GRAY, ODD, ONE, EMPTY)


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:
    """Augment one batch."""
    (augmentation,) = procedure(subject.registry, situation, augmentations=[technique]).augmentations
    images, targets = batch(situation)
    given = {"images": images, "targets": targets}
    before = copied(given)
    generator = torch.Generator(device="cpu").manual_seed(draw)
    changed, changed_targets = augmentation(images, targets, generator)
    result = {"images": changed, "targets": changed_targets}
    return Use(given=given, before=before, result=result, plain=before, generator=generator)
