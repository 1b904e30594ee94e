"""Inputs: fitted to training images, used on others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.errors import BrokenContract
from cnnbench.lazy import nn
from cnnbench.testing.compare import copied
from cnnbench.testing.networks import images, outputs
from cnnbench.testing.use import GRAY, ODD, ONE, PLAIN, Situation, Use

if TYPE_CHECKING:
    from cnnbench.testing.subject import Subject

situations = (PLAIN, GRAY, ODD, ONE)


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:
    """Fit to images, then normalize others."""
    given = {"images": images(situation, draw)}
    before = copied(given)
    made: object = technique(given["images"])
    if not isinstance(made, nn.Module):
        raise BrokenContract(f"{subject.name} returned {type(made).__name__}, expected an nn.Module")
    example = images(situation, draw=1).float() / 255
    return Use(
        given=given,
        before=before,
        result={"inputs": outputs(made, example)},
        module=made.eval(),
        example=example,
        plain={"inputs": example},
    )
