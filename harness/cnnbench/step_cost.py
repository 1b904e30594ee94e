"""What a training step takes with a technique and without it, timed in turns."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cnnbench.stages.threads import intra_op_threads
from cnnbench.stages.train import fit, train
from cnnbench.stats.rounds import paired_ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cnnbench.seeds import Streams
    from cnnbench.stages.build import Builder
    from cnnbench.stats.rounds import Ratio

MOST_STEPS = 20
"""Steps of one turn."""
FEWEST_ROUNDS, MOST_ROUNDS = 10, 60
STRATEGY_EPOCHS = 2
"""Strategies act between epochs, too."""


@dataclass(frozen=True)
class StepCost:
    """The time of one training step.

    Attributes:
        reference_ms: without the technique: median over the rounds, in ms.
        ms: with it.
        ratio: of the second to the first, paired by round.
        whole: a strategy is among them, so that building, training and what it does between epochs is timed, divided by
            the baseline's steps.
    """

    reference_ms: float
    ms: float
    ratio: Ratio
    whole: bool


def step_costs(
    reference: Builder, arms: Mapping[str, Builder], streams: Streams, seconds: float, threads: int
) -> dict[str, StepCost]:
    """Time steps of all in turns, so that what disturbs the machine for a while disturbs all alike.

    A turn is one short epoch on the same images; every round has one turn of each, in another order than the last.

    Args:
        reference: the baseline's.
        arms: others', by name.
        streams: all draw the same.
        seconds: to spend; a few rounds are taken whatever they need.
        threads: of torch on the CPU.
    """
    builders = [reference, *arms.values()]
    whole = any(builder.settings.techniques.get("strategy") for builder in builders)
    with intra_op_threads(threads):
        turns = [_turn(builder, streams, whole=whole) for builder in builders]
        for turn in turns:
            turn()
        times: list[list[float]] = []
        began = time.perf_counter()
        while len(times) < FEWEST_ROUNDS or (len(times) < MOST_ROUNDS and time.perf_counter() - began < seconds):
            taken = [0.0] * len(turns)
            start = len(times) % len(turns)  # nobody always comes first
            for index in [*range(start, len(turns)), *range(start)]:
                taken[index] = turns[index]()
            times.append(taken)
    rounds = np.asarray(times)
    middle = np.median(rounds, axis=0)
    return {
        name: StepCost(float(middle[0]), float(middle[i]), paired_ratio(rounds[:, i], rounds[:, 0]), whole)
        for i, name in enumerate(arms, 1)
    }


def _turn(builder: Builder, streams: Streams, *, whole: bool) -> Callable[[], float]:
    """A function that trains for a short epoch and returns the milliseconds of a step."""
    batch = builder.settings.recipe.batch_size
    splits = builder.splits.first(MOST_STEPS * batch)
    if not whole:  # else a strategy may want to look at it
        splits = replace(splits, validation_images=splits.validation_images[:0])
        splits = replace(splits, validation_labels=splits.validation_labels[:0])
    epochs = STRATEGY_EPOCHS if whole else 1
    short = replace(builder, splits=splits, most_epochs=epochs)
    recipe = replace(short.settings.recipe, epochs=epochs)
    short = replace(short, settings=replace(short.settings, recipe=recipe))
    steps = epochs * -(-len(splits.train_images) // batch)
    input_module = short.input_module()
    run, strategies = short.run(input_module, streams), short.techniques("strategy")
    model = short.model(streams)

    def turn() -> float:
        began = time.perf_counter()
        if whole:
            train(run, strategies)
        else:
            fit(model, run.how, streams)
        short.device.synchronize()
        return (time.perf_counter() - began) / steps * 1000

    return turn
