"""Regularizers: each of the methods that one has, in the order in which a training step calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from cnnbench.errors import NoEffect
from cnnbench.seeds import Streams
from cnnbench.slots import REGULARIZER_METHODS
from cnnbench.testing.compare import copied
from cnnbench.testing.reference import batch, builder, first_network, procedure
from cnnbench.testing.use import GRAY, ODD, ONE, PLAIN, Situation, Use

if TYPE_CHECKING:
    from torch import nn

    from cnnbench.testing.subject import Subject

situations = (PLAIN, GRAY, ODD, ONE)
EPOCHS = 3


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:
    """One training step on the first network that has what the technique acts on."""
    return first_network(situation, lambda network: _step(subject, technique, situation, draw, network))


def _step(subject: Subject, technique: Any, situation: Situation, draw: int, network: str) -> Use:
    (acts,) = procedure(subject.registry, situation, regularizers=[technique]).regularizers
    if not any(hasattr(acts, name) for name in REGULARIZER_METHODS):
        raise NoEffect(f"it has none of the methods of a regularizer: {', '.join(REGULARIZER_METHODS)}")
    streams = Streams(draw)
    model = builder(subject.registry, situation, network).model(Streams(0))
    result: dict[str, Any] = {}
    if hasattr(acts, "prepare"):
        result["prepared"] = acts.prepare(model, streams.generator("layers"))
        if not result["prepared"]:
            raise NoEffect(f"its prepare() found no layer to act on in network {network!r}")
    for epoch in range(EPOCHS if hasattr(acts, "epoch") else 0):
        acts.epoch(model, epoch, EPOCHS)
    images, targets = batch(situation)
    weights = dict(model.named_parameters())
    given = {"images": images, "targets": targets, "weights": weights}
    before = copied(given)
    model.train(situation.batch > 1)  # batch statistics of one image are undefined
    generator = streams.generator("gradients")
    with streams.default_generator("dropout"):
        smoothed = acts.targets(targets) if hasattr(acts, "targets") else targets
        loss, logits = _loss(acts, model, images, smoothed, result)
        loss.backward()
        given["weights"] = copied(weights)  # from here on it may change them
        if hasattr(acts, "perturb"):
            state = acts.perturb(model)
            result["perturbed"] = copied(dict(model.named_parameters()))
            model.zero_grad(set_to_none=True)
            _loss(acts, model, images, smoothed, {})[0].backward()
            acts.restore(model, state)
        if hasattr(acts, "gradients"):
            before["weights at gradients"] = copied(weights)
            acts.gradients(model, generator, 0)
            given["weights at gradients"] = copied(weights)
    result |= {"logits": logits.detach(), "targets": smoothed, "loss": loss.detach()}
    result["gradients"] = {name: copied(p.grad) for name, p in weights.items() if p.grad is not None}
    if hasattr(acts, "weights"):
        acts.weights(model, 0.1)
        result["weights"] = copied(weights)
    example = copied(images)
    return Use(given=given, before=before, result=result, module=model.eval(), example=example, generator=generator)


def _loss(
    acts: Any, model: nn.Module, images: torch.Tensor, targets: torch.Tensor, result: dict[str, Any]
) -> tuple[Any, torch.Tensor]:
    """The whole loss, and the logits; the penalty goes into the result."""
    logits = model(images)
    loss = F.cross_entropy(logits, targets)
    if hasattr(acts, "penalty"):
        penalty = acts.penalty(model, logits)
        result["penalty"] = copied(penalty)
        loss = loss + penalty
    return loss, logits
