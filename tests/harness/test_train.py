"""The training loop against plain PyTorch, and the order in which it calls what takes part."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cnnbench.data import Splits
from cnnbench.devices import Device
from cnnbench.errors import Diverged, Unsupported
from cnnbench.seeds import Streams
from cnnbench.slots import Observer
from cnnbench.stages.train import Procedure, Run, batch_bounds, fit, model_inputs, train, validate
from cnnbench.technique import technique
from cnnbench.types import Batch, Trained

CLASSES = 3
RATE = 0.1


def make_splits(count: int = 50, validation: int = 20, size: int = 6) -> Splits:
    """Noise on which the class shows as brightness, so that training has something to find."""
    generator = torch.Generator().manual_seed(1)

    def images(labels: torch.Tensor) -> torch.Tensor:
        noise = torch.randint(0, 120, (len(labels), 1, size, size), generator=generator)
        return (noise + 60 * labels.view(-1, 1, 1, 1)).to(torch.uint8)

    parts = [torch.randint(0, CLASSES, (n,), generator=generator) for n in (count, validation, 10)]
    tensors = [tensor for labels in parts for tensor in (images(labels), labels)]
    return Splits(*tensors, class_names=("a", "b", "c"))


class Halve(nn.Module):
    """An input normalization that shows whether it was used."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * 2 - 1


def cosine(step: int, total: int) -> float:
    return (1 + math.cos(math.pi * step / total)) / 2


def procedure(splits: Splits | None = None, **changes: Any) -> Procedure:
    return Procedure(
        **{
            "splits": splits or make_splits(),
            "input": Halve(),
            "augmentations": [],
            "regularizers": [],
            "optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9),
            "schedule": cosine,
            "loss": F.cross_entropy,
            "epochs": 3,
            "batch_size": 16,
            "precision": "fp32",
            "channels_last": False,
            "device": Device("cpu"),
            **changes,
        }
    )


def make_model(dropout: float = 0.0) -> nn.Module:
    with Streams(0).default_generator("init"):
        return nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(128, CLASSES)
        )


def weights(model: nn.Module) -> torch.Tensor:
    """Parameters and buffers as one vector."""
    return torch.cat([tensor.detach().double().flatten() for tensor in model.state_dict().values()])


def indices(how: Procedure, seed: int = 0) -> list[torch.Tensor]:
    """The rows of every epoch as the documented stream gives them."""
    order = Streams(seed).generator("order")
    return [torch.randperm(len(how.splits.train_images), generator=order) for _ in range(how.epochs)]


@dataclass
class Recorder:
    """An augmentation that changes nothing and keeps what it saw."""

    seen: list[torch.Tensor] = field(default_factory=list)
    draws: list[float] = field(default_factory=list)

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen.append(images.clone())
        self.draws.append(torch.rand((), generator=generator).item())
        return images, targets


# Against a loop written by hand.


def test_weights_equal_those_of_a_plain_loop():
    how = procedure()
    model, plain = make_model(), make_model()
    history = fit(model, how, Streams(0))

    images, labels = how.splits.train_images, how.splits.train_labels
    optimizer = torch.optim.SGD(plain.parameters(), lr=RATE, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3 * 4)
    expected = []
    for rows in indices(how):
        plain.train()
        losses = []
        for batch in rows.split(16):
            loss = F.cross_entropy(plain(images[batch] / 255 * 2 - 1), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            rate = optimizer.param_groups[0]["lr"]
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        plain.eval()
        with torch.no_grad():
            logits = plain(how.splits.validation_images / 255 * 2 - 1)
        expected.append(
            (
                sum(losses) / len(losses),
                F.cross_entropy(logits, how.splits.validation_labels).item(),
                (logits.argmax(1) == how.splits.validation_labels).double().mean().item(),
                rate,
            )
        )
    torch.testing.assert_close(weights(model), weights(plain), rtol=1e-4, atol=1e-5)
    found = [(p.train_loss, p.validation_loss, p.validation_accuracy, p.learning_rate) for p in history]
    for mine, other in zip(found, expected, strict=True):
        assert mine == pytest.approx(other, rel=1e-4, abs=1e-6)
    assert [(p.epoch, p.epochs, p.step) for p in history] == [(0, 3, 4), (1, 3, 8), (2, 3, 12)]
    assert history[-1].train_loss < history[0].train_loss
    assert not model.training


class OwnZero(torch.optim.SGD):
    """An optimizer that wants to know when gradients go."""

    told = 0

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.told += 1
        super().zero_grad(set_to_none)


@pytest.mark.parametrize("kind", [torch.optim.SGD, OwnZero])
def test_each_step_forgets_the_gradients_of_the_one_before(kind):
    model = make_model()
    optimizer = kind(model.parameters(), lr=RATE)
    held = []

    class Look:
        def penalty(self, model: nn.Module, logits: torch.Tensor) -> torch.Tensor:
            held.append([parameter.grad for parameter in model.parameters()])
            return logits.sum() * 0

    fit(model, procedure(optimizer=lambda _: optimizer, regularizers=[Look()]), Streams(0))
    assert len(held) > 1
    assert all(gradient is None for step in held for gradient in step)
    assert getattr(optimizer, "told", len(held)) == len(held)


def test_the_schedule_is_a_factor_of_each_group_s_own_rate():
    made: list[torch.optim.Optimizer] = []
    told: list[float] = []
    used: list[list[float]] = []

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        groups = [{"params": [p], "lr": RATE * (index + 1)} for index, p in enumerate(model.parameters())]
        made.append(torch.optim.SGD(groups, lr=1.0))
        return made[0]

    class Rates:
        def weights(self, model: nn.Module, learning_rate: float) -> None:
            told.append(learning_rate)
            used.append([group["lr"] for group in made[0].param_groups])

    fit(make_model(), procedure(optimizer=optimizer, regularizers=[Rates()], schedule=lambda s, t: s / t), Streams(0))
    for step, rates in enumerate(used):
        assert rates == pytest.approx([RATE * (index + 1) * step / 12 for index in range(6)])
    assert told == [rates[0] for rates in used]
    assert len(used) == 12


# Common random numbers and repeatability.


def test_two_runs_give_identical_weights_whatever_the_global_generator_holds():
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = make_model(dropout=0.5)
        before = torch.get_rng_state()
        fit(model, procedure(), Streams(0))
        assert torch.equal(torch.get_rng_state(), before), "training drew from the global generator"
        results.append(weights(model))
    assert torch.equal(*results)


@pytest.mark.parametrize("streams", [Streams(1), Streams(0, "placebo"), Streams(0).member(1)])
def test_other_streams_give_another_order_and_other_masks(streams):
    runs = []
    for own in (Streams(0), streams):
        recorder, model = Recorder(), make_model(dropout=0.5)
        fit(model, procedure(augmentations=[recorder]), own)
        runs.append((torch.cat(recorder.seen), weights(model), recorder.draws))
    (images, model, draws), (others, other_model, other_draws) = runs
    assert images.shape == others.shape
    assert not torch.equal(images, others)
    assert not torch.equal(model, other_model)
    assert not set(draws) & set(other_draws)


def test_order_augmentation_dropout_and_gradients_draw_from_streams_of_their_own():
    """However much one of them draws, the others see what they saw before."""

    class Greedy:
        def __call__(self, images: Any, targets: Any, generator: torch.Generator) -> Any:
            torch.rand(1000, generator=generator)
            return images, targets

    class Noise:
        def __init__(self, extra: int) -> None:
            self.extra, self.draws = extra, []

        def gradients(self, model: nn.Module, generator: torch.Generator, step: int) -> None:
            assert step == len(self.draws)
            self.draws.append(torch.rand((), generator=generator).item())
            torch.rand(self.extra, generator=generator)

    class Masks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[torch.Tensor] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                self.seen.append(torch.rand(3))  # from the default generator, as dropout does
            return x

    runs = []
    for augmentations, extra in (([], 0), ([Greedy()], 0), ([], 50)):
        recorder, noise, masks = Recorder(), Noise(extra), Masks()
        fit(
            nn.Sequential(make_model(), masks),
            procedure(augmentations=[recorder, *augmentations], regularizers=[noise]),
            Streams(0),
        )
        runs.append((torch.cat(recorder.seen), torch.stack(masks.seen), recorder.draws[0], noise.draws[0], noise.draws))
    for images, masks, first_draw, first_noise, _ in runs[1:]:
        assert torch.equal(images, runs[0][0])
        assert torch.equal(masks, runs[0][1])
        assert (first_draw, first_noise) == (runs[0][2], runs[0][3])
    assert runs[1][4] == runs[0][4]
    assert runs[2][4] != runs[0][4]  # only who draws more sees other draws
    own = Streams(0)
    assert runs[0][2] == torch.rand((), generator=own.generator("augmentation")).item()
    assert runs[0][3] == torch.rand((), generator=own.generator("gradients")).item()
    assert torch.equal(torch.cat(indices(procedure())).bincount(), torch.full((50,), 3))


def test_each_epoch_sees_every_image_once_in_the_documented_order():
    recorder = Recorder()
    how = procedure(augmentations=[recorder])
    fit(make_model(), how, Streams(0))
    expected = torch.cat([how.splits.train_images[rows] for rows in indices(how)]).float() / 255
    assert torch.equal(torch.cat(recorder.seen), expected)
    assert [len(batch) for batch in recorder.seen] == [16, 16, 16, 2] * 3


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 200), st.integers(1, 70))
def test_batches_cover_everything_but_a_single_last_image(count, size):
    bounds = batch_bounds(count, size)
    covered = [row for start, stop in bounds for row in range(start, stop)]
    dropped = count > size and count % size == 1
    assert covered == list(range(count - dropped))
    assert all(stop - start == size for start, stop in bounds[:-1])
    assert all(1 <= stop - start <= size for start, stop in bounds)


# The hooks.


class Spy:
    """A regularizer with every method, which keeps a log."""

    def __init__(self, log: list[str], name: str = "") -> None:
        self.log, self.name = log, name

    def targets(self, targets: torch.Tensor) -> torch.Tensor:
        self.log.append(f"{self.name}targets")
        return targets

    def penalty(self, model: nn.Module, logits: torch.Tensor) -> torch.Tensor:
        self.log.append(f"{self.name}penalty")
        return logits.sum() * 0

    def epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        assert model.training
        self.log.append(f"{self.name}epoch {epoch} of {epochs}")

    def perturb(self, model: nn.Module) -> object:
        self.log.append(f"{self.name}perturb")
        self.state = object()
        return self.state

    def restore(self, model: nn.Module, state: object) -> None:
        assert state is self.state, "what perturb returned comes back"
        self.log.append(f"{self.name}restore")

    def gradients(self, model: nn.Module, generator: torch.Generator, step: int) -> None:
        assert all(p.grad is not None for p in model.parameters())
        self.log.append(f"{self.name}gradients")

    def weights(self, model: nn.Module, learning_rate: float) -> None:
        self.log.append(f"{self.name}weights")


class SpyObserver(Observer):
    def __init__(self, log: list[str], name: str = "", stop_after: int | None = None) -> None:
        self.log, self.name, self.stop_after = log, name, stop_after

    def after_step(self, model: nn.Module, step: int) -> None:
        self.log.append(f"{self.name}step {step}")

    def after_epoch(self, model: nn.Module, progress: Any) -> bool:
        self.log.append(f"{self.name}epoch {progress.epoch}")
        return progress.epoch == self.stop_after


class EarlySpyObserver(SpyObserver):
    """Also tells of what comes before an epoch."""

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        assert model.training
        self.log.append(f"{self.name}before {epoch} of {epochs}")


class LoggedSGD(torch.optim.SGD):
    log: list[str]

    def step(self, *args: Any, **kwargs: Any) -> Any:
        self.log.append("update")
        return super().step(*args, **kwargs)


class LoggedModel(nn.Sequential):
    log: list[str]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.log.append("forward" if self.training else "evaluate")
        return super().forward(x)


def logged(log: list[str], **changes: Any) -> tuple[nn.Module, Procedure]:
    model = LoggedModel(*make_model())
    model.log = log

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        made = LoggedSGD(model.parameters(), lr=RATE)
        made.log = log
        return made

    def augmentation(name: str) -> Any:
        def augment(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Any:
            log.append(f"augment {name}")
            return images, targets

        return augment

    changes = {"augmentations": [augmentation("1"), augmentation("2")], "epochs": 2, "batch_size": 50, **changes}
    return model, procedure(optimizer=optimizer, **changes)


def test_everything_is_called_in_the_documented_order():
    log: list[str] = []
    model, how = logged(log, regularizers=[Spy(log)])
    fit(model, how, Streams(0), observers=[EarlySpyObserver(log, "A "), EarlySpyObserver(log, "B ")])
    step = [
        *("augment 1", "augment 2", "targets", "forward", "penalty"),
        *("perturb", "forward", "penalty", "restore", "gradients", "update", "weights"),
    ]
    assert log == [
        *("epoch 0 of 2", "A before 0 of 2", "B before 0 of 2"),
        *(*step, "A step 0", "B step 0", "evaluate", "A epoch 0", "B epoch 0"),
        *("epoch 1 of 2", "A before 1 of 2", "B before 1 of 2"),
        *(*step, "A step 1", "B step 1", "evaluate", "A epoch 1", "B epoch 1"),
    ]


def test_regularizers_act_in_the_order_of_the_list():
    log: list[str] = []
    model, how = logged(log, augmentations=[], epochs=1, regularizers=[Spy(log, "1 "), Spy(log, "2 ")])
    fit(model, how, Streams(0))
    both = ["forward", "1 penalty", "2 penalty"]
    assert log == [
        *("1 epoch 0 of 1", "2 epoch 0 of 1", "1 targets", "2 targets", *both),
        *("1 perturb", *both, "1 restore", "2 perturb", *both, "2 restore"),
        *("1 gradients", "2 gradients", "update", "1 weights", "2 weights", "evaluate"),
    ]


def test_what_each_hook_does_reaches_the_weights():
    """One step of plain SGD on a linear model, against the closed form."""
    splits = make_splits(8, 0)
    lr, decay, shift = 0.5, 0.03, 0.2

    class Everything:
        def targets(self, targets: torch.Tensor) -> torch.Tensor:
            return targets * 0.5

        def penalty(self, model: nn.Module, logits: torch.Tensor) -> torch.Tensor:
            return decay / 2 * model[1].weight.square().sum()

        def gradients(self, model: nn.Module, generator: torch.Generator, step: int) -> None:
            model[1].weight.grad += shift * torch.randn(model[1].weight.shape, generator=generator)

        def weights(self, model: nn.Module, learning_rate: float) -> None:
            with torch.no_grad():
                model[1].weight.mul_(1 - learning_rate * 0.1)

    model = nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES, bias=False))
    before = model[1].weight.detach().clone()
    how = procedure(
        splits,
        regularizers=[Everything()],
        optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=lr),
        schedule=lambda s, t: 1.0,
        epochs=1,
        batch_size=8,
    )
    fit(model, how, Streams(0))
    x = (splits.train_images.float() / 255 * 2 - 1).flatten(1)
    probabilities = F.softmax(x @ before.T, 1)
    targets = F.one_hot(splits.train_labels, CLASSES) * 0.5
    # d/dz of -sum_k t_k log softmax(z)_k is p sum(t) - t, and the targets sum to one half.
    gradient = (probabilities * 0.5 - targets).T @ x / 8 + decay * before
    gradient = gradient + shift * torch.randn(before.shape, generator=Streams(0).generator("gradients"))
    expected = (before - lr * gradient) * (1 - lr * 0.1)
    torch.testing.assert_close(model[1].weight.detach(), expected, rtol=1e-4, atol=1e-5)


class Point(nn.Module):
    """A model that is its parameter, whatever the input."""

    def __init__(self, start: torch.Tensor) -> None:
        super().__init__()
        self.point = nn.Parameter(start.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.point.expand(len(x), -1)


class Sharpness:
    """Sharpness-aware minimization (Foret et al. 2021, eq. 2) as the hooks allow it."""

    def __init__(self, rho: float) -> None:
        self.rho = rho

    def perturb(self, model: nn.Module) -> torch.Tensor:
        gradient = model.point.grad
        step: torch.Tensor = self.rho * gradient / gradient.norm()
        with torch.no_grad():
            model.point += step
        return step

    def restore(self, model: nn.Module, state: torch.Tensor) -> None:
        with torch.no_grad():
            model.point -= state


def test_perturb_and_restore_make_sam_on_a_quadratic():
    matrix = torch.tensor([[3.0, 1.0], [1.0, 2.0]])
    start, rho, lr = torch.tensor([1.0, -2.0]), 0.3, 0.05

    def quadratic(batch: Batch, logits: torch.Tensor) -> torch.Tensor:
        return (logits @ matrix * logits).sum(1).mean() / 2

    model = Point(start)
    how = procedure(
        make_splits(20, 0),
        regularizers=[Sharpness(rho)],
        optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=lr),
        schedule=lambda s, t: 1.0,
        epochs=2,
        batch_size=10,
    )
    history = fit(model, how, Streams(0), loss=quadratic)
    point = start.double()
    steps, matrix = [], matrix.double()
    for _ in range(4):
        steps.append(float(point @ matrix @ point / 2))
        gradient = matrix @ point
        point = point - lr * matrix @ (point + rho * gradient / gradient.norm())
    torch.testing.assert_close(model.point.detach().double(), point, rtol=1e-5, atol=1e-6)
    # The loss on record is the one at the unperturbed weights.
    assert [p.train_loss for p in history] == pytest.approx([sum(steps[:2]) / 2, sum(steps[2:]) / 2], rel=1e-5)


def test_a_loss_given_replaces_the_recipe_s_and_sees_what_the_model_saw():
    seen: list[torch.Tensor] = []

    class Keep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(36, CLASSES)
            self.inputs: list[torch.Tensor] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.inputs.append(x)
            return self.layer(x.flatten(1))

    def loss(batch: Batch, logits: torch.Tensor) -> torch.Tensor:
        seen.append(batch.inputs)
        return F.cross_entropy(logits, batch.targets)

    def refuse(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the recipe's loss was called")

    model = Keep()
    history = fit(model, procedure(make_splits(48, 0), loss=refuse), Streams(0), loss=loss)
    assert len(seen) == len(model.inputs) == 9
    assert all(one is other for one, other in zip(seen, model.inputs, strict=True))
    assert history[-1].train_loss < history[0].train_loss


# Observers, ends, modes.


def test_an_observer_stops_training_and_all_are_told():
    log: list[str] = []
    observers = [SpyObserver(log, "A ", stop_after=1), SpyObserver(log, "B ")]
    history = fit(make_model(), procedure(epochs=5, batch_size=50), Streams(0), observers=observers)
    assert [line for line in log if "epoch" in line] == ["A epoch 0", "B epoch 0", "A epoch 1", "B epoch 1"]
    assert [p.epoch for p in history] == [0, 1]
    assert {p.epochs for p in history} == {5}


def test_stopping_early_leaves_the_schedule_as_it_was():
    whole = fit(make_model(), procedure(), Streams(0))
    part = fit(make_model(), procedure(), Streams(0), observers=[SpyObserver([], stop_after=1)])
    assert part == whole[:2]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_divergence(bad):
    calls = []

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return F.cross_entropy(logits, targets) * (bad if len(calls) == 6 else 1)

    with pytest.raises(Diverged, match=r"training loss is (nan|inf) in epoch 2 of 3") as caught:
        fit(make_model(), procedure(loss=loss), Streams(0))
    assert [progress["epoch"] for progress in caught.value.history] == [0]  # the record keeps what went before
    assert len(calls) == 8  # the epoch ends; no step waited for the device to ask


def test_a_divergence_leaves_the_global_generator_restored():
    state = torch.get_rng_state()
    with pytest.raises(Diverged):
        fit(make_model(0.5), procedure(loss=lambda z, y: z.sum() * math.nan), Streams(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_validation_split_there_is_nothing_to_say_of_it():
    how = procedure(make_splits(validation=0))
    model = make_model()
    history = fit(model, how, Streams(0))
    assert {(p.validation_loss, p.validation_accuracy) for p in history} == {(None, None)}
    assert validate(model.train(), how) == (None, None)
    assert not model.training


def test_validation_leaves_training_as_it_was():
    """A validation split of the same size or none: the same weights, and batch norm learns from training alone."""
    with_split, without = make_model(0.3), make_model(0.3)
    splits = make_splits()
    fit(with_split, procedure(splits), Streams(0))
    fit(without, procedure(replace(splits, validation_images=splits.validation_images[:0])), Streams(0))
    assert torch.equal(weights(with_split), weights(without))


def test_validation_goes_over_all_batches(monkeypatch):
    how, model = procedure(), make_model()
    fit(model, how, Streams(0))
    whole = validate(model, how)
    monkeypatch.setattr("cnnbench.stages.train.EVALUATION_BATCH", 7)
    assert validate(model, how) == pytest.approx(whole, rel=1e-5)


def test_batch_norm_trains_on_batches_and_validates_on_running_statistics():
    log: list[str] = []
    model, how = logged(log, augmentations=[])
    fit(model, how, Streams(0))
    assert log == ["forward", "update", "evaluate"] * 2
    assert int(model[1].num_batches_tracked) == 2
    # One step at momentum 1 leaves exactly the batch's own statistics.
    model = make_model()
    model[1].momentum = 1.0
    before = model[0].weight.detach().clone(), model[0].bias.detach().clone()
    fit(model, procedure(epochs=1, batch_size=50), Streams(0))
    features = F.conv2d(how.splits.train_images / 255 * 2 - 1, *before)
    torch.testing.assert_close(model[1].running_mean, features.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model[1].running_var, features.var((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_augmentations_get_floats_in_0_to_1_and_one_hot_targets_before_normalization():
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Any:
        seen.append((images, targets))
        return images, targets

    how = procedure(augmentations=[keep])
    fit(make_model(), how, Streams(0))
    images, targets = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert images.dtype == targets.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    labels = torch.cat([how.splits.train_labels[rows] for rows in indices(how)])
    assert torch.equal(targets, F.one_hot(labels, CLASSES).float())


def test_training_leaves_the_data_as_it_was():
    how = procedure()
    copies = [tensor.clone() for tensor in (how.splits.train_images, how.splits.validation_images)]
    fit(make_model(), how, Streams(0))
    assert torch.equal(how.splits.train_images, copies[0])
    assert torch.equal(how.splits.validation_images, copies[1])


# Precision and memory format.


class Dtypes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = make_model()
        self.seen: set[torch.dtype] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.layer(x)
        self.seen.add(logits.dtype)
        return logits


def test_bf16_autocast_computes_in_bf16_and_keeps_fp32_weights():
    exact, rough = Dtypes(), Dtypes()
    fit(exact, procedure(), Streams(0))
    history = fit(rough, procedure(precision="bf16"), Streams(0))
    assert exact.seen == {torch.float32}
    assert rough.seen == {torch.bfloat16}
    assert {p.dtype for p in rough.parameters()} == {torch.float32}
    assert all(math.isfinite(p.train_loss) and p.validation_accuracy is not None for p in history)
    assert not torch.equal(weights(exact), weights(rough))
    torch.testing.assert_close(weights(exact), weights(rough), rtol=0.2, atol=0.05)


def test_channels_last_changes_the_layout_and_not_the_result():
    class Layout(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            layouts.add((x.is_contiguous(memory_format=torch.channels_last), x.is_contiguous()))
            return super().forward(x)

    results = []
    for channels_last in (False, True):
        layouts: set[tuple[bool, bool]] = set()
        splits = make_splits()
        colour = {f"{part}_images": getattr(splits, f"{part}_images").expand(-1, 3, -1, -1) for part in _PARTS}
        with Streams(0).default_generator("init"):
            model = nn.Sequential(Layout(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, CLASSES))
        fit(model, procedure(replace(splits, **colour), channels_last=channels_last), Streams(0))
        assert layouts == {(True, False) if channels_last else (False, True)}
        assert model[0].weight.is_contiguous(memory_format=torch.channels_last) == channels_last
        results.append(weights(model))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-4)


_PARTS = ("train", "validation", "test")


# Runs and strategies.


def make_run(**changes: Any) -> Run:
    def build(streams: Streams) -> nn.Module:
        with streams.default_generator("init"):
            return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, CLASSES))

    observers = changes.pop("observers", ())
    return Run(build, procedure(**changes), Streams(0), elsewhere, observers)


def elsewhere(dataset: Any, data: Any, epochs: int) -> Any:
    raise AssertionError("no strategy here asks for another dataset")


@dataclass(frozen=True)
class Named:
    """A strategy that logs, and brings an observer."""

    name: str
    log: list[str]

    def __call__(self, run: Any) -> Trained:
        self.log.append(f"{self.name} begins, {run.epochs} epochs")
        trained = run.fit(SpyObserver(self.log, f"{self.name} "))
        self.log.append(f"{self.name} ends")
        return replace(trained, notes={**trained.notes, self.name: True})


def test_strategies_nest_the_first_outermost_and_every_observer_is_told():
    log: list[str] = []
    run = make_run(epochs=1, batch_size=50, observers=(SpyObserver(log, "run "),))
    trained = train(run, [Named("outer", log), Named("inner", log)])
    assert log == [
        *("outer begins, 1 epochs", "inner begins, 1 epochs"),
        *("run step 0", "outer step 0", "inner step 0", "run epoch 0", "outer epoch 0", "inner epoch 0"),
        *("inner ends", "outer ends"),
    ]
    assert trained.notes == {"inner": True, "outer": True}


def test_without_strategies_the_run_is_fitted_once():
    run = make_run()
    assert torch.equal(weights(train(run, []).model), weights(run.fit().model))


def test_a_member_draws_everything_from_streams_of_its_own():
    recorder = Recorder()
    run = make_run(epochs=1, augmentations=[recorder])
    own, member = run.fit(), run.fit(member=1)
    same = replace(run, streams=Streams(0).member(1)).fit()
    orders = [torch.cat(recorder.seen[start : start + 4]) for start in (0, 4, 8)]
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(orders[1], orders[2])
    assert not torch.equal(weights(own.model), weights(member.model))
    assert torch.equal(weights(member.model), weights(same.model))


@dataclass
class MemberRun:
    """Keeps from which streams members drew."""

    families: list[str] = field(default_factory=list)
    streams: Streams = field(default_factory=lambda: Streams(0))
    epochs: int = 1

    def fit(self, *observers: Observer, member: int = 0, schedule: Any = None) -> Trained:
        self.families.append(self.streams.member(member).family)
        return Trained(nn.Identity(), [])

    def of_member(self, index: int) -> MemberRun:
        return replace(self, streams=self.streams.member(index))


@dataclass(frozen=True)
class Ensemble:
    count: int

    def __call__(self, run: Any) -> Trained:
        members = [run.fit(member=index) for index in range(self.count)]
        return members[0]


def test_members_draw_from_streams_of_their_own():
    run = MemberRun()
    train(run, [Ensemble(5)])
    assert len(set(run.families)) == 5
    assert run.families[0] == "", "the first member is the trial itself"


def test_a_member_draws_the_same_whatever_is_nested_within_it():
    """So that an ensemble and an ensemble of early-stopped networks compare like with like."""
    alone, around = MemberRun(), MemberRun()
    train(alone, [Ensemble(4)])
    train(around, [Ensemble(4), Named("inner", [])])
    assert alone.families == around.families


@dataclass(frozen=True)
class Acting:
    """A strategy that says what it acts on."""

    acts_on: str

    def __call__(self, run: Any) -> Trained:
        return run.fit()


def acting(name: str, acts_on: str) -> Any:
    cls = type(name, (Acting,), {"__doc__": "Acts."})
    return technique("strategy", name)(cls)(acts_on)


def test_strategies_that_would_undo_each_other_are_refused():
    wrap, several = acting("wrap", "inference"), acting("several", "members")
    choose, average, begin = acting("choose", "weights"), acting("average", "weights"), acting("begin", "training")
    anything = Named("anything", [])
    run = make_run(epochs=1, batch_size=50)
    for fine in ([wrap, several, choose, begin], [several, begin, begin], [wrap, anything, begin, anything], [choose]):
        assert len(train(run, fine).history) == 1
    with pytest.raises(Unsupported, match=r"from the outside in: write \['several', 'choose'\], not \['choose', 'sev"):
        train(run, [choose, several])
    with pytest.raises(Unsupported, match="choose and average each decide which weights"):
        train(run, [wrap, choose, average])
    with pytest.raises(Unsupported, match="several and many each train several models"):
        train(run, [several, acting("many", "members")])


@dataclass(frozen=True)
class Rated:
    """A strategy that trains by a schedule of its own."""

    schedule: Any
    seen: list[Any]

    def __call__(self, run: Any) -> Trained:
        self.seen.append(run.schedule)
        return run.fit(schedule=self.schedule)


def test_the_innermost_schedule_is_followed_and_the_recipe_s_is_known():
    def recipe(step: int, total: int) -> float:
        return 1.0

    def halved(step: int, total: int) -> float:
        return 0.5

    def tenth(step: int, total: int) -> float:
        return 0.1

    seen: list[Any] = []
    run = make_run(epochs=1, schedule=recipe)
    base = run.fit().history[0].learning_rate
    trained = train(run, [Rated(halved, seen), Rated(tenth, seen)])
    assert seen == [recipe, halved]
    assert trained.history[0].learning_rate == pytest.approx(0.1 * base)
    assert train(run, [Rated(halved, []), Named("n", [])]).history[0].learning_rate == pytest.approx(0.5 * base)
    assert train(run, []).history[0].learning_rate == base


# Recalibration.


@pytest.mark.parametrize("batch_size", [1, 50, 16])
def test_recalibrated_statistics_are_averages_over_the_training_split(batch_size):
    """Of batches of 64 at least, here all 100 images at once, however small the recipe's are."""
    run = make_run(batch_size=batch_size, splits=make_splits(100))
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(64, CLASSES))
    model[1].running_mean.fill_(9)
    model[1].running_var.fill_(9)
    momentum = model[1].momentum
    run.recalibrate(model)
    with torch.no_grad():
        features = model[0](run.how.splits.train_images / 255 * 2 - 1).double()
    torch.testing.assert_close(model[1].running_mean.double(), features.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model[1].running_var.double(), features.var((0, 2, 3)), rtol=1e-5, atol=1e-6)
    assert model[1].momentum == momentum
    assert not any(module.training for module in model.modules())


def test_recalibration_mixes_what_a_file_has_sorted_by_class():
    """Batches of one class each would lack the variance between classes."""
    splits = make_splits(400)
    rows = splits.train_labels.argsort()
    by_class = replace(splits, train_images=splits.train_images[rows], train_labels=splits.train_labels[rows])
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(36, CLASSES))
    make_run(batch_size=100, splits=by_class).recalibrate(model)
    pixels = (splits.train_images / 255 * 2 - 1).double()
    assert model[0].running_var.item() == pytest.approx(pixels.var().item(), rel=0.02)
    within = torch.stack([part.var() for part in pixels[rows].split(100)]).mean().item()
    assert within < 0.9 * pixels.var().item(), "the order of the file would have shown"


def test_a_single_training_image_leaves_the_statistics_as_they_are():
    run = make_run(splits=make_splits(CLASSES).first(1))
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(36, CLASSES))
    model[0].running_mean.fill_(9)
    run.recalibrate(model)
    assert model[0].running_mean.item() == 9


def test_recalibration_draws_nothing_at_random():
    """Statistics are those of inference, without dropout, and do not depend on the global generator."""
    run = make_run(batch_size=50)
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(36, CLASSES))
    state = torch.get_rng_state()
    run.recalibrate(model)
    assert torch.equal(torch.get_rng_state(), state)
    images = run.how.splits.train_images / 255 * 2 - 1
    torch.testing.assert_close(model[1].running_mean, images.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)


def test_recalibration_reaches_later_layers_through_batch_statistics():
    """As in training, a layer behind a batch norm sees features normalized by the batch's own statistics."""
    run = make_run(batch_size=50)
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 3))
    run.recalibrate(model)
    images = (run.how.splits.train_images / 255 * 2 - 1).double()
    normal = (images - images.mean()) / (images.var(correction=0) + model[0].eps).sqrt()
    features = F.conv2d(normal, model[1].weight.double(), model[1].bias.double())
    torch.testing.assert_close(model[2].running_mean.double(), features.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


# Inputs.


def test_model_inputs_are_normalized_in_parts_and_can_be_trained_on(monkeypatch):
    images = make_splits(23).train_images
    monkeypatch.setattr("cnnbench.stages.train.EVALUATION_BATCH", 10)
    inputs = model_inputs(images, Halve())
    torch.testing.assert_close(inputs, images / 255 * 2 - 1)
    layer = nn.Conv2d(1, 1, 3)
    layer(inputs).sum().backward()  # a compressor may take gradients on calibration images
    assert layer.weight.grad is not None
