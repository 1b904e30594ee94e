"""Two steps of a trial, to hear before it starts of what its techniques can't do.

A compressor that can't act on a model would otherwise say so after hours of training. The rehearsal builds the arm's
model, trains it for two steps and sends it through the arm's compressors, whose own trainings take two steps as well.
Before a trial its batches are as large as the trial's: so it needs as much memory too, which tells how many trials have
room side by side. What it makes is thrown away.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from cnnbench.errors import BrokenContract, NoEffect, Unsupported
from cnnbench.slots import Observer
from cnnbench.stages.compress import compress
from cnnbench.stages.remarks import remarks
from cnnbench.stages.train import model_inputs, train

if TYPE_CHECKING:
    from torch import nn

    from cnnbench.seeds import Streams
    from cnnbench.stages.build import Builder

STEPS = 2
MOST_IMAGES = 8
"""A batch where only what works is asked for; enough for batch statistics."""


def check(builder: Builder, streams: Streams) -> list[str]:
    """Rehearse, and speak of nothing but what can't work.

    Anything else that goes wrong is left to the trial itself, which may fare better with all of its data.

    Returns:
        Remarks on the model as it was built.

    Raises:
        Unsupported: a technique can't act on this model, data or device.
        NoEffect: a technique would change nothing.
        BrokenContract: a technique hands back what its slot does not allow.
    """
    look = _Look()
    try:
        rehearse(builder, streams, observers=(look,), most_images=builder.settings.recipe.batch_size)
    except (Unsupported, NoEffect, BrokenContract):
        raise
    except Exception:  # noqa: BLE001, S110 - a technique is another's code, and the trial will name what comes out of it
        pass
    return look.found


class _Look(Observer):
    """Looks at the first model before its first step, as it was built."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._looked = False

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:  # noqa: ARG002
        if not self._looked:
            self._looked = True
            self.found += remarks(model)


def rehearse(
    builder: Builder,
    streams: Streams,
    notes: list[str] | None = None,
    epochs: int = 1,
    observers: tuple[Observer, ...] = (),
    most_images: int = MOST_IMAGES,
) -> nn.Module:
    """Two steps of training, the compressors, and a forward pass, with whatever they raise.

    Args:
        builder: the arm's.
        streams: the trial's.
        notes: what surgery could not reach is appended here.
        epochs: of every training, at most.
        observers: told of the arm's own training.
        most_images: of a batch, if the arm's own are not smaller.

    Returns:
        The model as the trial would evaluate it but for its weights, in eval mode.
    """
    batch = min(builder.settings.recipe.batch_size, most_images)
    recipe = replace(builder.settings.recipe, batch_size=batch)
    short = replace(
        builder,
        settings=replace(builder.settings, recipe=recipe),
        splits=builder.splits.first(STEPS * batch),
        most_epochs=epochs,
        checked=True,
    )
    input_module = short.input_module()
    run = short.run(input_module, streams, observers=observers, notes=notes)
    model = train(run, short.techniques("strategy")).model
    how = short.procedure(input_module)
    model = compress(model, short.techniques("compressor"), short, how, streams)
    model.eval()
    with torch.no_grad():
        model(model_inputs(short.splits.test_images, input_module))
    return model
