"""Compressors: a small network that was trained for a few steps, with all that a trial hands to a compressor."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cnnbench.compat import random_splits
from cnnbench.devices import Device
from cnnbench.options import complete
from cnnbench.seeds import Streams
from cnnbench.stages.build import Builder
from cnnbench.stages.compress import compress
from cnnbench.stages.train import model_inputs, train
from cnnbench.testing.networks import outputs
from cnnbench.testing.use import Situation, Use
from cnnbench.types import Choice, DataOptions, Recipe, Settings

if TYPE_CHECKING:
    from torch import nn

    from cnnbench.registry import Registry
    from cnnbench.testing.subject import Subject

_COLOUR = Situation(height=8, width=8, batch=8)
situations = (_COLOUR, replace(_COLOUR, channels=1), replace(_COLOUR, height=9, width=7))
MODEL = Choice("model", "resnet", {"depth": 8, "width": 8})


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:
    """Train a network, and compress it."""
    builder, streams = builder_for(subject.registry, situation), Streams(draw, "conformance")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that compressors lean on
        given = trained(builder, streams)
        input_module = builder.input_module()
        example = model_inputs(builder.splits.test_images, input_module)
        plain = outputs(given, example)
        made = compress(given, [technique], builder, builder.procedure(input_module), streams)
        result = outputs(made, example)
    return Use(given={}, before={}, result={"logits": result}, module=made, example=example, plain={"logits": plain})


def builder_for(registry: Registry, situation: Situation) -> Builder:
    """Builds a small network and trains it on a few random images, an epoch at most."""
    settings = Settings(
        dataset=Choice("dataset", "random"),
        data=DataOptions(),
        model=complete(MODEL, registry),
        recipe=Recipe(
            epochs=1,
            batch_size=situation.batch // 2,
            optimizer=complete(Choice("optimizer", "sgd", {"lr": 0.01}), registry),
            schedule=complete(Choice("schedule", "constant"), registry),
            loss=complete(Choice("loss", "cross_entropy"), registry),
        ),
    )
    shape = (situation.channels, situation.height, situation.width)
    splits = random_splits(shape, situation.classes)
    return Builder(settings, registry, splits, Device("cpu"), most_epochs=1, checked=True)


def trained(builder: Builder, streams: Streams) -> nn.Module:
    """The network that is compressed, in eval mode."""
    return train(builder.run(builder.input_module(), streams), []).model.eval()
