"""Seeds trained in one loop against each of them trained by itself, and what is kept out of a stack."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnbench.data import Splits
from cnnbench.devices import Device
from cnnbench.options import make
from cnnbench.plugins import PluginHost
from cnnbench.seeds import Streams
from cnnbench.slots import Observer
from cnnbench.stages.stacked import Seat, fit_stacked, obstacle
from cnnbench.stages.stacking import Stack
from cnnbench.stages.together import NOTE, Apart, bytes_of, part_of, share_of
from cnnbench.stages.train import Procedure, fit
from cnnbench.types import Choice, Progress

CLASSES = 4
SIZE = 8


@pytest.fixture(scope="module")
def registry() -> Any:
    return PluginHost.discover().registry


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_splits(seed: int, count: int = 41, validation: int = 10) -> Splits:
    """Noise on which the class shows as brightness; other images for each seed."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for n in (count, validation, 4):
        labels = torch.randint(0, CLASSES, (n,), generator=generator)
        noise = torch.randint(0, 120, (n, 1, SIZE, SIZE), generator=generator)
        parts += [(noise + 40 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels]
    return Splits(*parts, class_names=tuple("abcd"))


class Halve(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * 2 - 1


def cosine(step: int, total: int) -> float:
    return (1 + math.cos(math.pi * step / total)) / 2


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def procedure(seed: int, **changes: Any) -> Procedure:
    return Procedure(
        **{
            "splits": make_splits(seed),
            "input": Halve(),
            "augmentations": [],
            "regularizers": [],
            "optimizer": momentum,
            "schedule": cosine,
            "loss": F.cross_entropy,
            "epochs": 2,
            "batch_size": 16,
            "precision": "fp32",
            "channels_last": False,
            "device": Device("cpu"),
            **changes,
        }
    )


# Without a bias before the norm: its gradient is nothing but rounding, which Adam would scale up to whole steps.
def small(norm: Any = lambda: nn.BatchNorm2d(6), *layers: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        norm(),
        nn.ReLU(),
        *layers,
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 4),
    )


def make_seats(build: Any = small, seeds: int = 3, **changes: Any) -> list[Seat]:
    seats = []
    for seed in range(seeds):
        streams = Streams(seed)
        with streams.default_generator("init"):
            model = build()
        seats.append(Seat(model, procedure(seed, **changes), streams))
    return seats


def check_equal(seats: list[Seat], alone: list[Seat], rtol: float = 1e-3, atol: float = 1e-4) -> None:
    """Train the first as a stack and the second one by one: the same weights, buffers and histories."""
    assert obstacle(seats) is None
    histories = fit_stacked(seats)
    for seat, other, history in zip(seats, alone, histories, strict=True):
        expected = fit(other.model, other.how, other.streams)
        state, wanted = seat.model.state_dict(), other.model.state_dict()
        assert list(state) == list(wanted)
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, wanted[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")
        assert history is not None
        assert [(p.epoch, p.epochs, p.step) for p in history] == [(p.epoch, p.epochs, p.step) for p in expected]
        for p, q in zip(history, expected, strict=True):
            assert p.train_loss == pytest.approx(q.train_loss, rel=rtol)
            assert p.validation_loss == pytest.approx(q.validation_loss, rel=10 * rtol)
            assert p.learning_rate == pytest.approx(q.learning_rate)
        assert not seat.model.training


NETWORKS = {
    "plain with batch norm": ("plain", {"norm": "batch"}, False),
    "resnet with batch norm, channels last": ("resnet", {"depth": 8, "width": 4}, True),
    "lenet": ("lenet", {}, False),
}


@pytest.mark.parametrize("seeds", [pytest.param(2, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_stack_of_networks_learns_what_each_learns_by_itself(registry, network, seeds):
    name, options, channels_last = NETWORKS[network]
    spec = make(Choice("model", name, {k: v for k, v in options.items() if k != "norm"}), registry)

    def build() -> nn.Module:
        return spec((1, SIZE, SIZE), CLASSES)

    check_equal(*(make_seats(build, seeds, channels_last=channels_last) for _ in range(2)))


@pytest.mark.parametrize("seeds", range(1, 5))
def test_any_number_of_seeds_with_group_norm(seeds):
    check_equal(*(make_seats(lambda: small(lambda: nn.GroupNorm(2, 6)), seeds) for _ in range(2)))


OPTIMIZERS = {
    "sgd": {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3},
    "adam": {"lr": 1e-3},
    "adamw": {"lr": 1e-3},
    "rmsprop": {"lr": 1e-3, "momentum": 0.5},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_elementwise_optimizer(registry, name):
    optimizer = make(Choice("optimizer", name, OPTIMIZERS[name]), registry)
    check_equal(*(make_seats(optimizer=optimizer) for _ in range(2)), atol=1e-3)


def test_each_seed_draws_its_own_order_and_augmentation(registry):
    def seats() -> list[Seat]:
        augmentations = [make(Choice("augmentation", n, {}), registry) for n in ("hflip", "translate", "mixup")]
        smoothing = make(Choice("regularizer", "label_smoothing", {"epsilon": 0.1}), registry)
        return make_seats(augmentations=augmentations, regularizers=[smoothing])

    check_equal(seats(), seats())


def test_bf16():
    check_equal(*(make_seats(precision="bf16") for _ in range(2)), rtol=0.1, atol=0.05)


class Tied(nn.Module):
    """A weight and a buffer that have two names each, a frozen weight, and a buffer that is no float."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(SIZE * SIZE, SIZE * SIZE, bias=False)
        self.second = nn.Linear(SIZE * SIZE, SIZE * SIZE, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Linear(SIZE * SIZE, CLASSES)
        self.head.bias.requires_grad_(False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.calls += 1
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x.flatten(1))))))


def test_tied_and_frozen_weights_and_counters():
    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)

    seats, alone = (make_seats(Tied, optimizer=optimizer) for _ in range(2))
    biases = [seat.model.head.bias.clone() for seat in seats]
    check_equal(seats, alone)
    for seat, bias in zip(seats, biases, strict=True):
        assert seat.model.second.weight is seat.model.first.weight
        assert torch.equal(seat.model.head.bias, bias)
        assert int(seat.model.calls) == 2 * 3


@dataclass
class Ear(Observer):
    heard: list[Progress] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        self.begun.append(epoch)

    def after_epoch(self, model: nn.Module, progress: Progress) -> bool:
        self.heard.append(progress)
        return False


def test_each_seed_s_epochs_are_told():
    ears = [Ear() for _ in range(3)]
    seats = [replace(seat, observers=(ear,)) for seat, ear in zip(make_seats(), ears, strict=True)]
    histories = fit_stacked(seats)
    assert [ear.heard for ear in ears] == histories
    assert [ear.begun for ear in ears] == [[0, 1]] * 3
    assert len({ear.heard[0].train_loss for ear in ears}) == 3


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_seed_that_diverges_does_so_alone(registry, optimizer):
    made = make(Choice("optimizer", optimizer, {"lr": 0.01}), registry)
    seats, alone = (make_seats(epochs=3, optimizer=made) for _ in range(2))
    with torch.no_grad():
        seats[1].model[0].weight.fill_(math.nan)
    histories = fit_stacked(seats)
    assert histories[1] is None
    for index in (0, 2):
        expected = fit(alone[index].model, alone[index].how, alone[index].streams)
        assert histories[index][-1].train_loss == pytest.approx(expected[-1].train_loss, rel=1e-3)
        for one, other in zip(seats[index].model.parameters(), alone[index].model.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


def test_a_parked_network_is_zeros_with_its_optimizer_s_state():
    seats = make_seats()
    stack = Stack([seat.model for seat in seats], seats[0].how)
    optimizer = torch.optim.Adam(stack.module.parameters())
    losses, _ = stack(torch.rand(4, 3, 1, SIZE, SIZE), torch.rand(3, 4, CLASSES))
    losses.sum().backward()
    optimizer.step()
    stack.park(1, optimizer)
    for parameter in stack.module.parameters():
        state = optimizer.state[parameter]
        for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"]):
            assert not tensor[1].any()
            assert tensor[0].any()
            assert tensor[2].any()


def test_it_ends_where_all_have_diverged():
    def never(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=math.inf)

    ear = Ear()
    seats = [replace(seat, observers=(ear,)) for seat in make_seats(epochs=50, optimizer=never)]
    assert fit_stacked(seats) == [None] * 3
    assert len(ear.begun) < 9


# What can't be stacked.


class Shuffled(nn.Module):
    """Its structure is drawn when it is built, and is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.order = torch.randperm(SIZE * SIZE).tolist()
        self.head = nn.Linear(SIZE * SIZE, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1)[:, self.order])


class Counting(nn.Module):
    """Counts its calls in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x


class Rebinding(nn.Module):
    """Puts a new tensor in its buffer's place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean = x.detach().mean() + 10
        return x


class Asking(nn.Module):
    """Looks at a value on its way."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else -x


def by_shape(model: nn.Module) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    groups = [{"params": [p for p in parameters if (p.ndim > 1) is many], "lr": 0.1} for many in (True, False)]
    return torch.optim.SGD(groups, weight_decay=0)


class Own(torch.optim.SGD):
    """Somebody's own."""


def drawing(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Any:
    return images + torch.rand(()), targets


def widths() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, int(torch.randint(3, 1000, ()))), nn.Linear(1, CLASSES))


@pytest.mark.parametrize(
    ("build", "changes", "reason"),
    [
        (lambda: small(nn.Identity, nn.Dropout(0.5)), {}, "its layers draw at random in training"),
        (lambda: small(nn.Identity, Counting()), {}, "its layers keep a state that is no tensor"),
        (lambda: small(nn.Identity, Rebinding()), {}, "comes out of the stack otherwise"),
        (lambda: small(nn.Identity, Asking()), {}, "torch.func.vmap: "),
        (Shuffled, {}, "comes out of the stack otherwise"),
        (widths, {}, "different shapes"),
        (small, {"optimizer": by_shape}, "treats parameters by their shape"),
        (
            small,
            {"optimizer": lambda m: Own(m.parameters(), lr=0.1)},
            "optimizer Own is not known to treat each weight",
        ),
        (small, {"optimizer": lambda m: torch.optim.LBFGS(m.parameters())}, "optimizer LBFGS is not known"),
        (small, {"augmentations": [drawing]}, "draws from torch's own generator"),
    ],
    ids=["dropout", "python state", "rebound", "asking", "drawn", "widths", "by shape", "own", "lbfgs", "generator"],
)
def test_what_can_t_be_stacked_is_known_beforehand(build, changes, reason):
    seats = make_seats(build, **changes)
    before = [{name: value.clone() for name, value in seat.model.state_dict().items()} for seat in seats]
    found = obstacle(seats)
    assert found is not None
    assert reason in found
    for seat, state in zip(seats, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in seat.model.state_dict().items())


@pytest.mark.parametrize("name", ["l2", "grad_clip", "weight_decay", "sam"])
def test_regularizers_that_look_at_one_network_are_kept_out(registry, name):
    seats = make_seats(regularizers=[make(Choice("regularizer", name, {}), registry)])
    assert obstacle(seats) == f"regularizer {name!r} looks at the weights or gradients of one network"


def test_seeds_with_different_numbers_of_images_are_kept_out():
    seats = make_seats()
    other = replace(seats[1].how, splits=make_splits(1, count=40))
    assert "numbers of training images" in str(obstacle([seats[0], replace(seats[1], how=other)]))


def test_looking_leaves_streams_and_models_alone():
    check_equal(make_seats(), make_seats())  # where ``obstacle`` has looked at the first


# How many at once, and what each is charged.


def test_a_seed_s_memory_grows_with_its_batch_and_its_weights():
    plain, larger, wider = (
        make_seats(seeds=1)[0],
        make_seats(seeds=1, batch_size=160)[0],
        make_seats(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 50_000), nn.Linear(50_000, 4)), 1)[0],
    )
    # Of 16 images: the map of 6 x 8 x 8 floats before and after the norm, which the backward pass needs.
    assert bytes_of(plain) > 2 * 16 * 2 * 6 * 64 * 4
    assert bytes_of(larger) > 5 * bytes_of(plain)
    assert bytes_of(wider) > 6 * 4 * (64 + 4) * 50_000


def test_parts_are_of_equal_size_and_fit():
    seat = make_seats(seeds=1)[0]
    need = bytes_of(seat)
    assert part_of(10, seat, None, 1) == 10
    assert part_of(10, seat, 2 * 10 * need, 1) == 10
    assert part_of(10, seat, 2 * 9 * need, 1) == 5  # not 9 and a single one
    assert part_of(10, seat, 2 * 4 * need, 1) == 4
    assert part_of(10, seat, 2 * 9 * need, 3) == 3
    with pytest.raises(Apart, match="memory for one at a time"):
        part_of(10, seat, 3 * need, 1)


def test_each_seed_is_charged_its_share():
    part = {"joules": 12.0, "method": "measured", "scope": "device"}
    whole = {
        "metrics": {"train_seconds": 8.0, "energy_train_j": 12.0, "memory_train_mib": 100.0},
        "methods": {"energy_train_j": "measured"},
        "details": {"energy_train": {"components": {"gpu": part}, "seconds": 8.0}},
        "notes": ["idle"],
    }
    assert share_of(whole, 4) == {
        "metrics": {"train_seconds": 2.0, "energy_train_j": 3.0},
        "methods": {"energy_train_j": "shared"},
        "details": {
            "energy_train": {"components": {"gpu": {**part, "joules": 3.0}}, "seconds": 2.0},
            "stacked": {"seeds": 4, "seconds": 8.0},
        },
        "notes": ["idle", NOTE],
    }
    estimated = {**whole, "methods": {"energy_train_j": "estimated"}}
    assert share_of(estimated, 4)["methods"] == {"energy_train_j": "estimated"}
