"""Augmentations: a batch of images with their targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cnnbench.testing.compare import copied
from cnnbench.testing.use import EMPTY, GRAY, ODD, ONE, PLAIN, Situation, Use

if TYPE_CHECKING:
    from cnnbench.testing.subject import Subject

situations = (PLAIN, GRAY, ODD, ONE, EMPTY)


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:  # noqa: ARG001 - as all slots have it
    """Augment one batch."""
    source = torch.Generator().manual_seed(0)
    images = torch.rand(situation.batch, situation.channels, situation.height, situation.width, generator=source)
    labels = torch.randint(situation.classes, (situation.batch,), generator=source)
    targets = torch.eye(situation.classes)[labels]
    given = {"images": images, "targets": targets}
    before = copied(given)
    changed, changed_targets = technique(images, targets, torch.Generator().manual_seed(draw))
    return Use(
        given=given,
        before=before,
        result={"images": changed, "targets": changed_targets},
        plain=before,
    )
