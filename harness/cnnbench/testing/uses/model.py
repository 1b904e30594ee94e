"""Models: built for small images, colour and gray, and for several numbers of classes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cnnbench.errors import BrokenContract
from cnnbench.lazy import nn
from cnnbench.seeds import Streams
from cnnbench.testing.networks import inputs, outputs
from cnnbench.testing.use import Situation, Use

if TYPE_CHECKING:
    from cnnbench.testing.subject import Subject

COLOUR = Situation(height=32, width=32, batch=3)
situations = (
    *(COLOUR, replace(COLOUR, channels=1), replace(COLOUR, height=33, width=31)),
    *(replace(COLOUR, batch=1, classes=7), replace(COLOUR, batch=0)),
)


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:
    """Build a network."""
    return built(technique, situation, draw, subject.name)


def built(model: Any, situation: Situation, draw: int, name: str) -> Use:
    """A network as the harness builds it, and what it computes.

    Raises:
        BrokenContract: what was made is no module.
    """
    streams = Streams(draw, "conformance")
    with streams.default_generator("init"):
        made: object = model((situation.channels, situation.height, situation.width), situation.classes)
    if not isinstance(made, nn.Module):
        raise BrokenContract(f"{name} returned {type(made).__name__}, expected an nn.Module")
    example = inputs(situation)
    with streams.default_generator("forward"):
        result = {"logits": outputs(made, example)}
    return Use(given={}, before={}, result=result, module=made.eval(), example=example)
