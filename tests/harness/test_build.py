"""From settings to a model and a procedure; and common random numbers, end to end, with the built-in techniques."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from cnnbench.data import Splits, load, split
from cnnbench.devices import Device
from cnnbench.errors import NoEffect, TrialError, Unsupported
from cnnbench.options import complete, make
from cnnbench.plugins import PluginHost
from cnnbench.registry import Owner
from cnnbench.seeds import Streams
from cnnbench.stages.build import Builder
from cnnbench.stages.train import train
from cnnbench.technique import technique
from cnnbench.types import Choice, DataOptions, Recipe, Settings

if TYPE_CHECKING:
    from cnnbench.registry import Registry
    from cnnbench.types import ImageData, Trained

CPU = Device("cpu")
DATA = DataOptions(train_size=80, test_size=20, validation=0.1)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return PluginHost.discover().registry


@pytest.fixture(scope="module")
def digits(registry) -> ImageData:
    return load(make(Choice("dataset", "digits"), registry))


def settings_of(registry: Registry, techniques: dict[str, list[Choice]] | None = None, **recipe: Any) -> Settings:
    def whole(slot: str, name: str, **options: Any) -> Choice:
        return complete(Choice(slot, name, options), registry)

    chosen = {
        slot: tuple(complete(choice, registry) for choice in choices) for slot, choices in (techniques or {}).items()
    }
    return Settings(
        dataset=whole("dataset", "digits"),
        data=DATA,
        model=whole("model", "resnet", depth=8, width=4),
        recipe=Recipe(
            **{
                "epochs": 2,
                "batch_size": 32,
                "optimizer": whole("optimizer", "sgd", lr=0.05),
                "schedule": whole("schedule", "cosine"),
                "loss": whole("loss", "cross_entropy"),
                **recipe,
            }
        ),
        techniques=chosen,
    )


def builder_of(registry: Registry, digits: ImageData, streams: Streams, settings: Settings) -> Builder:
    return Builder(settings, registry, split(digits, settings.data, streams, CPU.torch), CPU)


class Recorder:
    """An augmentation that changes nothing and keeps the images it saw."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def __call__(self, images: Any, targets: Any, generator: Any) -> Any:
        self.seen.append(images.clone())
        return images, targets


def trace(registry: Registry, digits: ImageData, settings: Settings, streams: Streams) -> dict[str, torch.Tensor]:
    """What a trial starts from and sees: initial and final weights, and raw images in their order; and its splits."""
    builder = builder_of(registry, digits, streams, settings)
    initial: list[torch.Tensor] = []

    def build(own: Streams) -> nn.Module:
        model = builder.model(own)
        initial.extend(p.detach().clone().flatten() for p in model.parameters())
        return model

    recorder = Recorder()
    run = builder.run(builder.input_module(), streams)
    how = replace(run.how, augmentations=[recorder, *run.how.augmentations])
    trained = train(replace(run, build=build, how=how), builder.techniques("strategy"))
    return {
        "initial": torch.cat(initial),
        "order": torch.cat(recorder.seen),
        "validation": builder.splits.validation_images,
        "final": torch.cat([p.detach().flatten() for p in trained.model.parameters()]),
    }


@pytest.fixture(scope="module")
def baseline(registry, digits) -> dict[str, torch.Tensor]:
    return trace(registry, digits, settings_of(registry), Streams(0))


@pytest.mark.parametrize(
    "techniques",
    [
        {"augmentation": [Choice("augmentation", "translate", {"pixels": 1})]},
        {"augmentation": [Choice("augmentation", "hflip"), Choice("augmentation", "gaussian_noise")]},
        {"augmentation": [Choice("augmentation", "mixup")]},
        {"regularizer": [Choice("regularizer", "dropout")]},
        {"regularizer": [Choice("regularizer", "dropout", {"where": "blocks", "p": 0.2})]},
        {"regularizer": [Choice("regularizer", "label_smoothing")]},
        {"regularizer": [Choice("regularizer", "l2", {"strength": 0.1})]},
        {"activation": [Choice("activation", "silu")]},
        {"input": [Choice("input", "z_score")]},
    ],
    ids=lambda techniques: "+".join(choice.name for choices in techniques.values() for choice in choices),
)
def test_a_technique_leaves_initialization_order_and_split_bit_for_bit(registry, digits, baseline, techniques):
    arm = trace(registry, digits, settings_of(registry, techniques), Streams(0))
    for part in ("initial", "order", "validation"):
        assert torch.equal(arm[part], baseline[part]), part
    assert not torch.equal(arm["final"], baseline["final"])


def test_an_initializer_leaves_the_order_and_changes_the_start(registry, digits, baseline):
    settings = settings_of(registry, {"initializer": [Choice("initializer", "orthogonal")]})
    arm = trace(registry, digits, settings, Streams(0))
    assert torch.equal(arm["order"], baseline["order"])
    assert not torch.equal(arm["initial"], baseline["initial"])
    again = trace(registry, digits, settings, Streams(0))
    assert torch.equal(arm["initial"], again["initial"])


def test_the_recipe_leaves_initialization_and_order(registry, digits, baseline):
    settings = settings_of(registry, batch_size=16, optimizer=complete(Choice("optimizer", "adam"), registry))
    arm = trace(registry, digits, settings, Streams(0))
    assert torch.equal(arm["initial"], baseline["initial"])
    assert torch.equal(arm["order"], baseline["order"])


@pytest.mark.parametrize("streams", [Streams(1), Streams(0, "placebo")], ids=["another seed", "placebo"])
def test_a_seed_and_the_placebo_change_everything(registry, digits, baseline, streams):
    arm = trace(registry, digits, settings_of(registry), streams)
    for part in ("initial", "order", "validation", "final"):
        assert arm[part].shape == baseline[part].shape
        assert not torch.equal(arm[part], baseline[part]), part


def test_a_trial_again_gives_the_same_bits_whatever_came_before(registry, digits, baseline):
    torch.manual_seed(99)
    trace(registry, digits, settings_of(registry, {"regularizer": [Choice("regularizer", "dropout")]}), Streams(5))
    again = trace(registry, digits, settings_of(registry), Streams(0))
    for part, expected in baseline.items():
        assert torch.equal(again[part], expected), part


def test_dropout_with_ema_is_repeatable(registry, digits):
    settings = settings_of(
        registry,
        {
            "regularizer": [Choice("regularizer", "dropout", {"where": "blocks", "p": 0.3})],
            "strategy": [Choice("strategy", "ema", {"decay": 0.8})],
        },
    )
    finals = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        finals.append(trace(registry, digits, settings, Streams(0))["final"])
    assert torch.equal(*finals)


# What a builder makes.


def test_slots_act_in_the_documented_order(registry, digits):
    """architecture, build, convolution, pooling, norm, activation, regularizer.prepare, initializer."""
    log: list[str] = []
    own = PluginHost.discover().registry

    @technique("architecture", "log_architecture")
    class Architecture:
        """Logs."""

        def __call__(self, model: Any) -> Any:
            log.append("architecture")
            return replace(model, width=3)

    def surgery(slot: str, kind: type[nn.Module]) -> type[Any]:
        @technique(slot, f"log_{slot}")
        class Surgery:
            """Logs and replaces a module by an equal one."""

            def __call__(self, module: nn.Module) -> nn.Module:
                log.append(slot)
                return kind()

        return Surgery

    @technique("regularizer", "log_regularizer")
    class Regularizer:
        """Logs."""

        def prepare(self, model: nn.Module, generator: torch.Generator) -> int:
            assert generator.initial_seed() == Streams(4).number("layers")
            log.append("prepare")
            return 1

    @technique("initializer", "log_initializer")
    class Initializer:
        """Logs."""

        def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
            assert generator.initial_seed() == Streams(4).number("initializer")
            assert not torch.is_grad_enabled()
            log.append("initializer")
            for parameter in model.parameters():
                parameter.fill_(0.5)

    made = [Architecture, Regularizer, Initializer, surgery("activation", nn.Tanh), surgery("norm", nn.Identity)]
    for cls in made:
        own.add(cls, Owner("test", "test", "0"))
    techniques = {slot: [Choice(slot, f"log_{slot}")] for slot in ("initializer", "regularizer", "activation", "norm")}
    settings = settings_of(own, {**techniques, "architecture": [Choice("architecture", "log_architecture")]})
    model = builder_of(own, digits, Streams(4), settings).model(Streams(4))
    assert list(dict.fromkeys(log)) == ["architecture", "norm", "activation", "prepare", "initializer"]
    assert log[-1] == "initializer"
    assert next(model.parameters()).shape[0] == 3
    assert all(bool((p == 0.5).all()) for p in model.parameters())
    assert not any(isinstance(m, nn.BatchNorm2d | nn.ReLU) for m in model.modules())


def test_a_technique_that_finds_nothing_to_do_is_an_error(registry, digits):
    own = PluginHost.discover().registry

    @technique("regularizer", "idle")
    class Idle:
        """Acts on nothing."""

        def prepare(self, model: nn.Module, generator: torch.Generator) -> int:
            return 0

    own.add(Idle, Owner("test", "test", "0"))
    settings = settings_of(own, {"regularizer": [Choice("regularizer", "idle")]})
    with pytest.raises(NoEffect, match="regularizer 'idle' found no layer to act on in 'resnet'"):
        builder_of(own, digits, Streams(0), settings).model(Streams(0))
    settings = replace(
        settings_of(registry, {"norm": [Choice("norm", "group", {"groups": 2})]}),
        model=complete(Choice("model", "plain", {"norm": False}), registry),
    )
    with pytest.raises(NoEffect):
        builder_of(registry, digits, Streams(0), settings).model(Streams(0))


def test_a_model_that_is_no_module_is_told(digits):
    own = PluginHost.discover().registry

    @technique("model", "number")
    class Number:
        """Builds a number."""

        def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> Any:
            return 7

    own.add(Number, Owner("test", "test", "0"))
    settings = replace(settings_of(own), model=Choice("model", "number"))
    with pytest.raises(TrialError, match=r"model 'number' returned int, not an nn\.Module"):
        builder_of(own, digits, Streams(0), settings).model(Streams(0))


def test_what_surgery_could_not_reach_is_noted(digits):
    own = PluginHost.discover().registry

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.head = nn.ReLU(), nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.act(x.flatten(1)) - 0.1))

    @technique("model", "functional")
    class Model:
        """Calls an activation functionally."""

        def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
            return Functional()

    own.add(Model, Owner("test", "test", "0"))
    settings = settings_of(own, {"activation": [Choice("activation", "tanh")]})
    builder = builder_of(own, digits, Streams(0), replace(settings, model=Choice("model", "functional")))
    notes: list[str] = []
    builder.model(Streams(0), notes)
    assert len(notes) == 1
    assert notes[0].startswith("activation: could not reach")


def test_input_is_fitted_on_the_training_split_alone(registry, digits):
    settings = settings_of(registry, {"input": [Choice("input", "z_score")]})
    builder = builder_of(registry, digits, Streams(0), settings)
    images = builder.splits.train_images.double() / 255
    held_out = builder.splits.validation_images.float() / 255
    module = builder.input_module()
    assert not module.training
    expected = (held_out.double() - images.mean()) / images.std(correction=0)
    torch.testing.assert_close(module(held_out).double(), expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(held_out.double().mean(), images.mean(), atol=1e-4)


def test_no_input_technique_means_0_to_1_as_it_is(registry, digits):
    builder = builder_of(registry, digits, Streams(0), settings_of(registry))
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(builder.input_module()(images), images)


@pytest.mark.parametrize("asked", [None, True, False])
def test_the_recipe_decides_the_memory_format_and_else_the_device(registry, digits, monkeypatch, asked):
    for helps in (True, False):
        monkeypatch.setattr(Device, "channels_last_helps", property(lambda self, helps=helps: helps))
        builder = builder_of(registry, digits, Streams(0), settings_of(registry, channels_last=asked))
        how = builder.procedure(builder.input_module())
        assert how.channels_last is (helps if asked is None else asked)
        assert how.memory_format == (torch.channels_last if how.channels_last else torch.contiguous_format)


def test_a_procedure_is_the_recipe_and_the_arm_s_techniques(registry, digits):
    settings = settings_of(
        registry,
        {
            "augmentation": [Choice("augmentation", "hflip", {"p": 0.25}), Choice("augmentation", "cutout")],
            "regularizer": [Choice("regularizer", "l1"), Choice("regularizer", "l2")],
        },
        precision="bf16",
    )
    builder = builder_of(registry, digits, Streams(0), settings)
    how = builder.procedure(builder.input_module())
    assert [type(a).__name__ for a in how.augmentations] == ["HFlip", "Cutout"]
    assert how.augmentations[0].p == 0.25
    assert [type(r).__name__ for r in how.regularizers] == ["L1", "L2"]
    assert (how.epochs, how.batch_size, how.precision) == (2, 32, "bf16")
    assert isinstance(how.splits, Splits)
    optimizer = how.optimizer(nn.Linear(2, 2))
    assert (type(optimizer), optimizer.param_groups[0]["lr"]) == (torch.optim.SGD, 0.05)


def test_another_model_gets_the_same_surgery(registry, digits):
    settings = settings_of(registry, {"activation": [Choice("activation", "tanh")]})
    builder = builder_of(registry, digits, Streams(0), settings)
    other = builder.with_model(Choice("model", "lenet"))
    model = other.model(Streams(0))
    assert builder.settings.model.name == "resnet"
    assert any(isinstance(m, nn.Tanh) for m in model.modules())
    assert not any(isinstance(m, nn.ReLU) for m in model.modules())


def test_without_validation_early_stopping_is_unsupported(registry, digits):
    settings = settings_of(registry, {"strategy": [Choice("strategy", "early_stopping")]})
    with pytest.raises(Unsupported, match="validation"):
        trace(registry, digits, replace(settings, data=replace(DATA, validation=0.0)), Streams(0))


# Lazy layers, calibration, other data.


@technique("initializer", "looks")
class Looks:
    """Sets what it is shown."""

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        SHOWN.clear()

    def calibrate(self, model: nn.Module, inputs: torch.Tensor) -> None:
        assert not torch.is_grad_enabled()
        SHOWN.append(inputs)
        next(model.parameters()).fill_(0.25)


SHOWN: list[torch.Tensor] = []


@technique("pooling", "lazy")
class Lazy:
    """A layer that learns its sizes from its first input."""

    misfit: bool = False

    def __call__(self, module: nn.Module) -> nn.Module:
        return nn.Sequential(module, nn.LazyConv2d(3, 1) if self.misfit else nn.LazyBatchNorm2d())


def with_own(*classes: Any) -> Registry:
    own = PluginHost.discover().registry
    for cls in classes:
        own.add(cls, Owner("test", "test", "0"))
    return own


def test_an_initializer_may_look_at_training_images_as_the_model_sees_them(digits):
    own = with_own(Looks)
    chosen = {"initializer": [Choice("initializer", "looks")], "input": [Choice("input", "z_score")]}
    builder = builder_of(own, digits, Streams(0), settings_of(own, chosen))
    model = builder.model(Streams(0))
    (inputs,) = SHOWN
    assert inputs.shape == (min(256, len(builder.splits.train_images)), 1, 8, 8)
    normalized = builder.input_module()(builder.splits.train_images / 255)
    assert all((normalized == image).flatten(1).all(1).any() for image in inputs[:20])
    assert torch.equal(next(model.parameters()), torch.full_like(next(model.parameters()), 0.25))


def test_lazy_layers_take_their_sizes_before_the_weights_are_set(digits):
    own = with_own(Lazy)

    def model(**options: Any) -> nn.Module:
        chosen = {"pooling": [Choice("pooling", "lazy", options)], "initializer": [Choice("initializer", "zeros")]}
        settings = settings_of(own, chosen)
        settings = replace(settings, model=complete(Choice("model", "plain", {"depth": 3, "width": 2}), own))
        return builder_of(own, digits, Streams(0), settings).model(Streams(0))

    made = model()
    assert {type(m) for m in made.modules() if "Norm" in type(m).__name__} == {nn.BatchNorm2d}
    sizes = [m.num_features for m in made.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sizes == [2, 2, 4, 4, 8, 8]
    with pytest.raises(Unsupported, match="does not run on 1x8x8 images after the surgery"):
        model(misfit=True)


def test_a_run_on_another_dataset_has_its_classes_and_this_one_s_shape(registry, digits):
    builder = builder_of(registry, digits, Streams(0), settings_of(registry))
    run = builder.run(builder.input_module(), Streams(0))
    shapes = complete(Choice("dataset", "shapes"), registry)
    other = run.on(shapes, DataOptions(train_size=120, validation=0.2), epochs=1)
    assert other.epochs == 1
    seen: list[tuple[int, ...]] = []
    recorder = Recorder()
    trained = replace(other, how=replace(other.how, augmentations=[recorder])).fit()
    seen = [tuple(images.shape[1:]) for images in recorder.seen]
    assert set(seen) == {(1, 8, 8)}
    assert sum(len(images) for images in recorder.seen) == 96
    assert trained.model(torch.zeros(2, 1, 8, 8)).shape == (2, other.how.splits.num_classes)
    assert torch.equal(weights_of(run.fit()), weights_of(builder.run(builder.input_module(), Streams(0)).fit()))
    member = run.of_member(1).on(shapes, DataOptions(train_size=120), epochs=1)
    assert not torch.equal(weights_of(member.fit()), weights_of(run.on(shapes, DataOptions(train_size=120), 1).fit()))
    short = replace(builder, most_epochs=1, splits=builder.splits.first(16))
    rehearsed = short.run(short.input_module(), Streams(0)).on(shapes, DataOptions(train_size=120), epochs=30)
    assert (rehearsed.epochs, len(rehearsed.how.splits.train_images)) == (1, 16)


def weights_of(trained: Trained) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trained.model.parameters()])
