"""What compressors get from the harness, and how they are chained."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnbench.data import load, split
from cnnbench.devices import Device
from cnnbench.options import complete, make
from cnnbench.plugins import PluginHost
from cnnbench.seeds import Streams
from cnnbench.slots import Observer
from cnnbench.stages.build import Builder
from cnnbench.stages.compress import Context, compress
from cnnbench.stages.train import fit, train
from cnnbench.types import Batch, Choice, DataOptions, Recipe, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnbench.registry import Registry

CPU = Device("cpu")
STUDENT = Choice("model", "plain", {"depth": 3, "width": 3, "norm": True})


@pytest.fixture(scope="module")
def registry() -> Registry:
    return PluginHost.discover().registry


@pytest.fixture(scope="module")
def builder(registry) -> Builder:
    def whole(slot: str, name: str, **options: Any) -> Choice:
        return complete(Choice(slot, name, options), registry)

    settings = Settings(
        dataset=whole("dataset", "digits"),
        data=DataOptions(train_size=100, test_size=20, validation=0.2),
        model=whole("model", "lenet"),
        recipe=Recipe(
            epochs=2,
            batch_size=20,
            optimizer=whole("optimizer", "sgd", lr=0.05, momentum=0.9),
            schedule=whole("schedule", "cosine"),
            loss=whole("loss", "cross_entropy"),
        ),
        techniques={
            "input": (whole("input", "z_score"),),
            "activation": (whole("activation", "tanh"),),
            "norm": (whole("norm", "group", groups=1),),
            "initializer": (whole("initializer", "orthogonal"),),
            "augmentation": (whole("augmentation", "hflip"),),
        },
    )
    # lenet has no norm to replace, the student has: the teacher is built by hand.
    data = split(load(make(settings.dataset, registry)), settings.data, Streams(0), CPU.torch)
    return Builder(settings, registry, data, CPU)


def make_teacher() -> nn.Module:
    with Streams(0).default_generator("init"):
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


def context_of(builder: Builder, seed: int = 0, observers: Any = ()) -> Context:
    return Context(builder, builder.procedure(builder.input_module()), Streams(seed), Streams(seed), observers)


def state(model: nn.Module) -> torch.Tensor:
    return torch.cat([t.detach().double().flatten() for t in model.state_dict().values()])


def run(
    builder: Builder, model: nn.Module, *compressors: Callable[[nn.Module, Context], nn.Module], seed: int = 0
) -> nn.Module:
    how = builder.procedure(builder.input_module())
    return compress(model, compressors, builder, how, Streams(seed))


def test_calibration_is_a_fixed_choice_of_training_images_as_the_model_sees_them(builder):
    context = context_of(builder)
    first = context.calibration(30)
    torch.rand(5, generator=context.generator)
    assert torch.equal(context.calibration(30), first)
    assert torch.equal(context.calibration(10), first[:10])
    assert torch.equal(context.example, first[:1])
    assert len(context.calibration(10_000)) == len(builder.splits.train_images) == 80
    assert not torch.equal(context_of(builder, 1).calibration(30), first)
    # As the model sees them: normalized, each a training image, none twice, none of validation or test.
    normalized = context.how.input(builder.splits.train_images / 255)
    rows = [(normalized == image).flatten(1).all(1).nonzero().flatten().tolist() for image in first]
    assert all(rows)
    assert len({row[0] for row in rows}) == 30
    layer = nn.Conv2d(1, 1, 3)
    layer(first).sum().backward()
    assert layer.weight.grad is not None


def test_the_generator_moves_on_and_starts_anew_for_each_context(builder):
    context = context_of(builder)
    first, second = (torch.rand(3, generator=context.generator).tolist() for _ in range(2))
    assert first != second
    again = context_of(builder)
    assert torch.rand(3, generator=again.generator).tolist() == first
    assert context.num_classes == 10


def test_build_makes_a_fresh_student_with_the_arm_s_surgery_and_initializer(builder):
    context = context_of(builder)
    student = context.build(STUDENT)
    kinds = {type(m) for m in student.modules()}
    assert {nn.Tanh, nn.GroupNorm} <= kinds
    assert not kinds & {nn.ReLU, nn.BatchNorm2d}
    for conv in (m for m in student.modules() if isinstance(m, nn.Conv2d)):
        matrix = conv.weight.detach().flatten(1)
        small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        torch.testing.assert_close(small / small[0, 0], torch.eye(len(small)), rtol=1e-4, atol=1e-4)
    assert torch.equal(state(student), state(context.build(STUDENT)))
    own = builder.with_model(STUDENT).model(Streams(0))
    assert not torch.equal(state(student), state(own)), "the student starts where an arm of its kind would"


def test_train_is_the_arm_s_procedure(builder):
    context = context_of(builder)
    one, other = make_teacher(), make_teacher()
    history = context.train(one, epochs=3)
    expected = fit(other, replace(context.how, epochs=3), context.streams)
    assert torch.equal(state(one), state(other))
    assert history == expected
    assert [p.epochs for p in history] == [3, 3, 3]
    assert not one.training


def test_each_training_of_a_compressor_draws_anew(builder):
    context = context_of(builder)
    one, other, again = make_teacher(), make_teacher(), make_teacher()
    context.train(one, epochs=1)
    context.train(other, epochs=1)
    context_of(builder).train(again, epochs=1)
    assert not torch.equal(state(one), state(other))
    assert torch.equal(state(one), state(again))


def test_the_initial_model_is_the_one_that_was_trained(builder):
    seen: list[torch.Tensor] = []

    class First(Observer):
        def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
            seen.append(state(model))

    plain = {slot: chosen for slot, chosen in builder.settings.techniques.items() if slot != "norm"}
    builder = replace(builder, settings=replace(builder.settings, techniques=plain))
    builder.run(builder.input_module(), Streams(0)).fit(First())
    initial = replace(context_of(builder), streams=Streams(0, "compress0")).initial()
    assert torch.equal(state(initial), seen[0])


def test_recalibration_and_techniques_by_name(builder):
    context, model = context_of(builder), make_teacher()
    context.recalibrate(model)
    with torch.no_grad():
        features = model[0](context.how.input(builder.splits.train_images / 255))
    torch.testing.assert_close(model[1].running_mean, features.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert not model.training
    assert context.make(Choice("activation", "tanh")) == make(Choice("activation", "tanh"), builder.registry)
    halves = context.input(Choice("input", "min_max"))(torch.full((1, 1, 8, 8), 0.75))
    torch.testing.assert_close(halves, torch.full((1, 1, 8, 8), 0.5))


def test_a_student_is_what_its_own_options_say(builder):
    """Architecture techniques rewrite the arm's model alone."""
    student = builder.with_model(STUDENT)
    assert "architecture" not in student.settings.techniques
    wide = {**builder.settings.techniques, "architecture": (Choice("architecture", "width", {"multiplier": 2.0}),)}
    arm = replace(builder, settings=replace(builder.settings, techniques=wide))
    assert arm.with_model(STUDENT).settings.techniques == builder.settings.techniques


def test_the_most_epochs_hold_for_every_training(builder):
    short = replace(builder, most_epochs=1)
    assert short.procedure(short.input_module()).epochs == 1
    assert len(context_of(short).train(make_teacher(), epochs=5)) == 1


@pytest.mark.parametrize("rate", [None, 0.007, 0.0])
def test_a_learning_rate_overrides_the_recipe_s_and_the_schedule_still_acts(builder, rate):
    class Rates(Observer):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def after_epoch(self, model: nn.Module, progress: Any) -> bool:
            self.seen.append(progress.learning_rate)
            return False

    outer, inner = Rates(), Rates()
    context_of(builder, observers=(outer,)).train(make_teacher(), epochs=2, learning_rate=rate, observers=(inner,))
    base = 0.05 if rate is None else rate
    expected = [base * (1 + math.cos(math.pi * step / 8)) / 2 for step in (3, 7)]
    assert inner.seen == outer.seen == pytest.approx(expected)


def test_a_loss_replaces_the_recipe_s(builder):
    model = make_teacher()
    seen: list[tuple[torch.Size, torch.Size, torch.Size]] = []

    def loss(batch: Batch, logits: torch.Tensor) -> torch.Tensor:
        seen.append((batch.inputs.shape, logits.shape, batch.targets.shape))
        return logits.square().mean()

    context_of(builder).train(model, epochs=6, loss=loss)
    assert seen[0] == ((20, 1, 8, 8), (20, 10), (20, 10))
    inputs = context_of(builder).calibration(80)
    with torch.no_grad():
        after, before = (m(inputs).square().mean() for m in (model, make_teacher().eval()))
    assert after < before


def test_validation_accuracy_is_of_the_validation_split(builder):
    context, model = context_of(builder), make_teacher()
    context.train(model, epochs=2)
    with torch.no_grad():
        logits = model(context.how.input(builder.splits.validation_images / 255))
    expected = (logits.argmax(1) == builder.splits.validation_labels).double().mean().item()
    assert context.validation_accuracy(model) == pytest.approx(expected)
    none = replace(builder.splits, validation_images=builder.splits.validation_images[:0])
    assert math.isnan(replace(context, how=replace(context.how, splits=none)).validation_accuracy(model))


# Chains.


@dataclass
class Draw:
    """Keeps what it draws and sees."""

    log: list[Any]

    def __call__(self, model: nn.Module, context: Context) -> nn.Module:
        images = context.calibration(5)
        self.log.append((torch.rand(3, generator=context.generator).tolist(), images, context.build(STUDENT)))
        return model


def test_each_compressor_of_a_chain_draws_from_streams_of_its_own(builder):
    log: list[Any] = []
    run(builder, make_teacher(), Draw(log), Draw(log))
    run(builder, make_teacher(), Draw(log), Draw(log))
    (first, calibration, student), (second, other_calibration, other_student), *again = log
    assert first != second
    assert not torch.equal(calibration, other_calibration)
    assert not torch.equal(state(student), state(other_student))
    assert [draws for draws, *_ in again] == [first, second]
    run(builder, make_teacher(), Draw(log), seed=1)
    assert log[-1][0] not in (first, second)


def test_compressors_get_copies_and_the_trained_model_stays(builder):
    model = make_teacher().eval()
    before = state(model).clone()
    seen: list[nn.Module] = []

    def double(given: nn.Module, context: Context) -> nn.Module:
        seen.append(given)
        assert not given.training
        with torch.no_grad():
            for parameter in given.parameters():
                parameter.mul_(2)
        return given.train()

    result = run(builder, model, double, double)
    assert torch.equal(state(model), before)
    assert len({id(model), *map(id, seen)}) == 3
    # The first compressor's result is not changed by the second either.
    parameters = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert torch.equal(torch.cat([p.detach().flatten() for p in seen[0].parameters()]), 2 * parameters)
    assert torch.equal(torch.cat([p.detach().flatten() for p in result.parameters()]), 4 * parameters)
    assert not result.training


def test_a_compression_again_gives_the_same_bits(builder, registry):
    results = []
    compressors = [
        make(Choice("compressor", "prune_random", {"sparsity": 0.5, "epochs": 1}), registry),
        make(Choice("compressor", "distill", {"student": STUDENT.plain(), "epochs": 1}), registry),
    ]
    for seed in (3, 4):
        torch.manual_seed(seed)
        results.append(state(run(builder, make_teacher(), *compressors)))
    assert torch.equal(*results)


def test_a_teacher_is_asked_about_the_very_images_that_the_student_sees(builder):
    class Teacher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[torch.Tensor] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.asked.append(x.clone())
            return torch.zeros(len(x), 10)

    teacher, trained_on = Teacher(), []

    def distill(model: nn.Module, context: Context) -> nn.Module:
        student = make_teacher()
        student.register_forward_pre_hook(lambda m, args: trained_on.append(args[0].clone()) if m.training else None)
        context.train(
            student,
            epochs=1,
            loss=lambda batch, z: F.kl_div(z.log_softmax(1), teacher(batch.inputs).softmax(1), reduction="batchmean"),
        )
        return student

    run(builder, make_teacher(), distill)
    assert len(teacher.asked) == 4
    assert all(torch.equal(a, b) for a, b in zip(teacher.asked, trained_on, strict=True))


class Doubling(nn.Linear):
    """Twice a linear layer, which at inference is one of twice the weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)

    def folded(self) -> nn.Module:
        plain = nn.Linear(self.in_features, self.out_features)
        plain.load_state_dict({name: 2 * value for name, value in self.state_dict().items()})
        return plain


def test_what_is_for_training_alone_is_folded_before_and_after_compression(builder):
    def network() -> nn.Module:
        with Streams(0).default_generator("init"):
            return nn.Sequential(nn.Flatten(), Doubling(64, 10))

    run_ = replace(builder.run(builder.input_module(), Streams(0)), build=lambda streams: network())
    plain = run_.fit().model
    trained = train(run_, []).model
    images = torch.rand(5, 1, 8, 8)
    assert type(trained[1]) is nn.Linear
    torch.testing.assert_close(trained(images), plain(images))
    student = run(builder, trained, lambda model, context: network())
    assert type(student[1]) is nn.Linear
    torch.testing.assert_close(student(images), network()(images))
