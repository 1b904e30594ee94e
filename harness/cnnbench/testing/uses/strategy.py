"""Strategies: a whole tiny training run, through the stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cnnbench.seeds import Streams
from cnnbench.stages.train import train
from cnnbench.testing.reference import batch, builder, first_network
from cnnbench.testing.use import GRAY, ODD, PLAIN, Situation, Use

if TYPE_CHECKING:
    from cnnbench.testing.subject import Subject

situations = (PLAIN, GRAY, ODD)


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:
    """Train a few epochs with the strategy around them."""
    return first_network(situation, lambda network: _trained(subject, [technique], situation, draw, network))


def _trained(subject: Subject, strategies: list[Any], situation: Situation, draw: int, network: str) -> Use:
    made = builder(subject.registry, situation, network)
    trained = train(made.run(made.input_module(), Streams(draw)), strategies)
    model, example = trained.model.eval(), batch(situation)[0]
    with torch.no_grad():
        logits = model(example)
    result = {"logits": logits, "history": trained.history, "notes": trained.notes, "remarks": trained.remarks}
    plain = _trained(subject, [], situation, draw, network).result if strategies else None
    return Use(given={}, before={}, result=result, module=model, example=example, plain=plain)
