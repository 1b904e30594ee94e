"""Rules about techniques in a training run."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch

from cnnbench.errors import (
    BrokenContract,
    CnnbenchError,
    Diverged,
    MissingDependency,
    NoEffect,
    Unsupported,
    words_of,
)
from cnnbench.options import complete
from cnnbench.seeds import Streams
from cnnbench.stages.train import train
from cnnbench.testing.compare import copied, difference
from cnnbench.testing.reference import batch, builder, first_network, procedure
from cnnbench.testing.rule import Broken, Inapplicable, Rule
from cnnbench.testing.use import PLAIN
from cnnbench.testing.uses import optimizer as optimizers
from cnnbench.testing.uses.schedule import RUNS
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnnbench.testing.subject import Subject

TRAINED = frozenset(
    {"architecture", "convolution", "pooling", "norm", "activation", "initializer", "input", "augmentation"}
    | {"regularizer", "strategy", "optimizer", "schedule", "loss"}
)
"""Slots that training depends on."""
USUAL = {
    "optimizer": Choice("optimizer", "sgd", {"lr": 0.01}),
    "schedule": Choice("schedule", "constant"),
    "loss": Choice("loss", "cross_entropy"),
}
"""What a technique of the recipe is compared with."""
FIXES: Mapping[type[CnnbenchError], str] = {
    NoEffect: "give an example={...} with which it finds something to act on in a small network, on 16 x 16 images",
    Unsupported: "give an example={...} with which it can act on a small network and on 16 x 16 images",
    BrokenContract: "hand back what the slot's contract in docs/plugin_slots.md says",
    Diverged: "keep loss, weights and outputs finite, or give an example={...} of milder options",
}
"""How to mend what a tiny training ended with."""


def _effect(subject: Subject) -> None:
    choice, usual = subject.choice(), USUAL.get(subject.slot)
    if usual is not None and complete(usual, subject.registry) == choice:
        raise Inapplicable("it is what the others of its slot are compared with")

    def look(network: str) -> None:
        without = _ended(subject, network, *filter(None, [usual]))
        if not difference(without, _ended(subject, network, choice)):
            what = "weights, outputs and history"
            raise Broken(f"a training of network {network!r} with it ends with the very {what} of one without")

    try:
        first_network(PLAIN, look)
    except MissingDependency:
        raise
    except tuple(FIXES) as error:
        fix = next(text for kind, text in FIXES.items() if isinstance(error, kind))
        raise Broken(words_of(error), fix) from error


def _ended(subject: Subject, network: str, *techniques: Choice) -> Any:
    """What a tiny training ends with."""
    made = builder(subject.registry, PLAIN, network, *techniques)
    strategies = made.techniques("strategy")
    input_module = made.input_module()
    trained = train(made.run(input_module, Streams(0)), strategies)
    with torch.no_grad():
        logits = trained.model.eval()(input_module(batch(PLAIN)[0]))
    return {"logits": logits, "history": trained.history, "weights": trained.model.state_dict()}


def _weights_back(subject: Subject) -> None:
    (acts,) = procedure(subject.registry, PLAIN, regularizers=[subject.technique()]).regularizers
    if not hasattr(acts, "perturb"):
        raise Inapplicable("it moves no weights")
    model = optimizers.fresh_model(subject, PLAIN)
    before = copied(dict(model.named_parameters()))
    images, targets = batch(PLAIN)
    torch.nn.functional.cross_entropy(model(images), targets).backward()  # type: ignore[no-untyped-call]
    state = acts.perturb(model)
    acts.restore(model, state)
    if found := difference(before, dict(model.named_parameters()), within=1e-5, at="after restore() the model"):
        raise Broken(found)


def _moves_weights(subject: Subject) -> None:
    model = optimizers.fresh_model(subject, PLAIN)
    before = copied(dict(model.named_parameters()))
    optimizer = optimizers.made(subject, subject.technique(), PLAIN, model)
    for _ in range(optimizers.STEPS):
        optimizers.step(model, optimizer, PLAIN)
    for name, parameter in model.named_parameters():
        moved = not torch.equal(before[name], parameter)
        if moved is not parameter.requires_grad:
            raise Broken(f"{name} {'is frozen and moved' if moved else 'did not move'} in {optimizers.STEPS} steps")


def _resumes(subject: Subject) -> None:
    model = optimizers.fresh_model(subject, PLAIN)
    optimizer = optimizers.made(subject, subject.technique(), PLAIN, model)
    optimizers.step(model, optimizer, PLAIN)
    twin = copy.deepcopy(model)
    again = optimizers.made(subject, subject.technique(), PLAIN, twin)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(optimizers.STEPS):
        optimizers.step(model, optimizer, PLAIN)
        optimizers.step(twin, again, PLAIN)
    if found := difference(dict(model.named_parameters()), dict(twin.named_parameters()), at="the model"):
        raise Broken(f"going on from its state_dict() in a fresh optimizer gives other weights: {found}")


def _rates(subject: Subject) -> None:
    schedule = subject.technique()
    for total in RUNS:
        factors = [schedule(step, total) for step in range(total)]
        for step, factor in enumerate(factors):
            if not math.isfinite(factor) or factor < 0:
                raise Broken(f"its factor is {factor:g} in step {step} of {total}")
        if not any(factors):
            raise Broken(f"its factor is 0 all along a run of {total} steps")


RULES: tuple[Rule, ...] = (
    Rule(
        "effect",
        "a tiny training with it runs by the contracts of all slots, and ends differently from one without",
        "let what it computes reach the training; where its defaults do so only in longer runs or on larger images, "
        "give an example={...}; raise NoEffect where it finds nothing to do",
        _effect,
        TRAINED,
        needs=frozenset({"dtypes-kept"}),
    ),
    Rule(
        "weights-back",
        "restore() puts back the weights that perturb() moved",
        "return the old weights from perturb() and copy them back in restore()",
        _weights_back,
        frozenset({"regularizer"}),
        at="restore",
    ),
    Rule(
        "moves-weights",
        "every trainable parameter moves, and no frozen one",
        "give the optimizer the parameters of the model that require gradients, all of them",
        _moves_weights,
        frozenset({"optimizer"}),
    ),
    Rule(
        "resumes",
        "a fresh optimizer that is given its state_dict() goes on as it would have",
        "keep everything in self.state and self.param_groups, nothing in attributes of its own",
        _resumes,
        frozenset({"optimizer"}),
    ),
    Rule(
        "rates",
        "its factors are finite, never negative, and not all 0, in runs of 1, 2 and 100 steps",
        "mind runs of a single step where you divide by total_steps - 1",
        _rates,
        frozenset({"schedule"}),
    ),
)
