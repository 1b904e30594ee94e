"""The rehearsal: what can't be done is told before any training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from cnnbench.data import load, split
from cnnbench.devices import resolve
from cnnbench.errors import NoEffect, Unsupported
from cnnbench.options import complete, make
from cnnbench.plain import settings_plain
from cnnbench.plugins import PluginHost
from cnnbench.registry import Owner
from cnnbench.seeds import Streams
from cnnbench.stages.bench import Bench
from cnnbench.stages.build import Builder
from cnnbench.stages.rehearse import check, rehearse
from cnnbench.technique import technique
from cnnbench.types import Choice, DataOptions, Recipe, Settings

if TYPE_CHECKING:
    from cnnbench.registry import Registry
    from cnnbench.types import Progress

SEEN: list[Any] = []
CPU = resolve("cpu")


@technique("compressor", "spy")
class Spy:
    """Notes what it is given."""

    def __call__(self, model: nn.Module, context: Any) -> nn.Module:
        history: list[Progress] = context.train(model, epochs=50)
        SEEN.append((len(history), history[-1].step, len(context.calibration(1000))))
        return model


@technique("compressor", "refuses")
class Refuses:
    """Can't act on anything."""

    def __call__(self, model: nn.Module, context: Any) -> nn.Module:
        raise Unsupported("no layer of that kind")


@technique("compressor", "idle")
class Idle:
    """Changes nothing."""

    def __call__(self, model: nn.Module, context: Any) -> nn.Module:
        raise NoEffect("nothing to do")


@technique("compressor", "breaks")
class Breaks:
    """Is broken."""

    def __call__(self, model: nn.Module, context: Any) -> nn.Module:
        raise RuntimeError("a bug")


@pytest.fixture(scope="module")
def registry() -> Registry:
    own = PluginHost.discover().registry
    for cls in (Spy, Refuses, Idle, Breaks):
        own.add(cls, Owner("test", "test", "0"))
    return own


@pytest.fixture
def builder(registry) -> Any:
    def made(*compressors: str, **techniques: tuple[Choice, ...]) -> Builder:
        def whole(slot: str, name: str, **options: Any) -> Choice:
            return complete(Choice(slot, name, options), registry)

        settings = Settings(
            dataset=whole("dataset", "digits"),
            data=DataOptions(train_size=200, test_size=100),
            model=whole("model", "resnet", width=4),
            recipe=Recipe(
                epochs=40,
                batch_size=32,
                optimizer=whole("optimizer", "sgd"),
                schedule=whole("schedule", "cosine"),
                loss=whole("loss", "cross_entropy"),
            ),
            techniques={
                "compressor": tuple(whole("compressor", name) for name in compressors),
                **{
                    slot: tuple(complete(choice, registry) for choice in choices)
                    for slot, choices in techniques.items()
                },
            },
        )
        data = split(load(make(settings.dataset, registry)), settings.data, Streams(0), CPU.torch)
        return Builder(settings, registry, data, CPU)

    return made


def test_two_steps_of_training_and_of_each_compressor(builder):
    SEEN.clear()
    model = rehearse(builder("spy", "spy"), Streams(0))
    assert [(epochs, steps) for epochs, steps, _ in SEEN] == [(1, 2), (1, 2)]
    assert all(images <= 16 for *_, images in SEEN)
    assert not model.training


def test_what_can_t_work_is_raised(builder):
    with pytest.raises(Unsupported, match="no layer of that kind"):
        check(builder("spy", "refuses"), Streams(0))
    with pytest.raises(NoEffect, match="nothing to do"):
        check(builder("idle"), Streams(0))
    whole = builder(strategy=(Choice("strategy", "early_stopping"),))
    empty = replace(whole.splits, validation_images=whole.splits.validation_images[:0])
    with pytest.raises(Unsupported, match="no validation split"):
        check(replace(whole, splits=empty), Streams(0))


def test_faults_are_left_to_the_trial(builder):
    assert check(builder("breaks"), Streams(0)) == []
    with pytest.raises(RuntimeError, match="a bug"):
        rehearse(builder("breaks"), Streams(0))


def test_the_built_model_s_remarks_are_kept_also_where_the_rest_breaks(builder):
    dropout = Choice("regularizer", "dropout", {"where": "blocks"})
    (line,) = check(builder("breaks", regularizer=(dropout,)), Streams(0))
    assert line.startswith("dropout before batch norm")


def test_it_leaves_the_global_generator_alone(builder):
    before = torch.get_rng_state()
    check(builder("spy"), Streams(0))
    assert torch.equal(before, torch.get_rng_state())


def test_the_rehearsal_takes_the_memory_of_whole_batches(builder, tmp_path, registry):
    def reached(batch: int) -> float:
        made = builder()
        recipe = replace(made.settings.recipe, batch_size=batch)
        task = {
            "kind": "rehearse",
            "seed": 0,
            "family": "",
            "device": "cpu",
            "threads": 1,
            "metrics": [],
            "settings": settings_plain(replace(made.settings, recipe=recipe, data=DataOptions())),
        }
        bench = Bench(registry)
        try:
            found: float = bench.run(task, [], tmp_path, lambda _: None)["peak_mib"]
        finally:
            bench.close()
        return found

    small, large = reached(2), reached(512)
    assert small > 10, "a process with torch in it"
    assert large > small + 5, "512 images of 8x8 through ten layers of 4 to 16 channels, kept for the backward pass"
