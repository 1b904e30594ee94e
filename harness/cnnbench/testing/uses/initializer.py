"""Initializers: a freshly built network's weights, and what training images say of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from cnnbench.seeds import Streams
from cnnbench.testing.compare import copied
from cnnbench.testing.networks import FIRST, NETWORKS, inputs, network, outputs
from cnnbench.testing.use import GRAY, ODD, PLAIN, Situation, Use

if TYPE_CHECKING:
    from torch import nn

    from cnnbench.testing.subject import Subject

situations = (PLAIN, GRAY, ODD, *(replace(PLAIN, layers=layers) for layers in NETWORKS if layers != FIRST))


def fresh_network(situation: Situation) -> nn.Module:
    """The network that is filled, as its own code makes it."""
    with Streams(0, "conformance").default_generator("init"):
        return network(situation)


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:  # noqa: ARG001 - as all slots have it
    """Fill a network, and show it images where the technique asks for them."""
    filled = fresh_network(situation)
    example = inputs(situation)
    given = {"inputs": example}
    before = copied(given)
    fill(technique, filled, example, draw)
    return Use(
        given=given,
        before=before,
        result={"logits": outputs(filled, example)},
        module=filled.eval(),
        example=example,
        plain={"logits": outputs(fresh_network(situation), example)},
    )


def fill(technique: Any, model: nn.Module, example: torch.Tensor, draw: int) -> None:
    """Call an initializer as the harness does."""
    with torch.no_grad():
        technique(model, torch.Generator().manual_seed(draw))
        if hasattr(technique, "calibrate"):
            technique.calibrate(model, example)
