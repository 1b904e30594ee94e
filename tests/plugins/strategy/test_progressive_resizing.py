"""What the model sees in each epoch, and what it is left with."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.transforms.v2 import functional as reference

from cnnbench.errors import NoEffect, Unsupported
from cnnbench.slots import Observer
from cnnbench.stages.train import train
from cnnbench_plugins.strategy.ensembles import DeepEnsemble, SnapshotEnsemble
from cnnbench_plugins.strategy.progressive_resizing import ProgressiveResizing, resize


class Watch(nn.Module):
    """Notes the size of what passes, and whether in training."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bool, tuple[int, ...]]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append((self.training, tuple(images.shape[1:])))
        return images


def watched(head: nn.Module | None = None):
    def build(streams) -> nn.Module:
        with streams.default_generator("init"):
            pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(4, 3)]
            layers = [Watch(), nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
            return nn.Sequential(*layers, *([head] if head else pooled))

    return build


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.01, 1), st.sampled_from([1, 4, 7]), st.sampled_from([1, 3]))
def test_resize_is_torchvisions_to_a_multiple(height, width, scale, multiple, channels):
    images = torch.rand(2, channels, height, width)
    found = resize(images, scale, multiple)
    for side, full in zip(found.shape[-2:], (height, width), strict=True):
        assert side == full or (side < full and side % multiple == 0 and abs(side - scale * full) <= max(multiple, 1))
    expected = reference.resize(images, list(found.shape[-2:]), antialias=True)
    torch.testing.assert_close(found, expected)


def test_sides_grow_by_epoch_and_evaluation_sees_full_size(make_run):
    run = make_run(epochs=6, size=16, build=watched())
    trained = ProgressiveResizing(start=0.5, full=0.34, multiple=2)(run)
    seen = trained.model[0].seen
    training = [shape for mode, shape in seen if mode]
    # Four epochs from 8 up in steps of 2 (16 times 1/2, 5/8, 3/4, 7/8), then two at 16; three steps each.
    assert training == [(1, side, side) for side in (8, 10, 12, 14, 16, 16) for _ in range(3)]
    tried, *validation = [shape[1] for mode, shape in seen if not mode]
    assert (tried, validation[0]) == (16, 8)  # one image of each size before the first step
    assert set(validation[1:]) == {16}
    assert trained.remarks == []


def test_no_hook_stays_and_modes_are_as_they_were(make_run):
    class Modes(Observer):
        """Which modules are in training mode after each step."""

        def __init__(self) -> None:
            self.modes = []

        def after_step(self, model, step):
            self.modes.append([module.training for module in model.modules()])

    observer = Modes()
    run = make_run(epochs=4, size=16, build=watched())

    class Bound(type(run)):
        def fit(self, *observers, member=0, schedule=None):
            return super().fit(observer, *observers, member=member, schedule=schedule)

    trained = ProgressiveResizing()(Bound(run.build, run.how, run.streams, run.elsewhere))
    assert hooks(trained.model) == 0
    assert all(all(modes) for modes in observer.modes)
    snapshots = train(run, [SnapshotEnsemble(cycles=3), ProgressiveResizing()])
    assert hooks(snapshots.model) == 0
    assert hooks(train(run, [DeepEnsemble(k=2), ProgressiveResizing()]).model) == 0


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(4 * 16 * 16, 3)), "takes 16 x 16 images but not 8 x 8"),
        (nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(4, 3, 1), nn.Flatten()), "its output has another shape"),
    ],
)
@pytest.mark.parametrize("epochs", [1, 5])
def test_a_network_for_one_size_is_refused_before_its_first_step(make_run, head, reason, epochs):
    class Steps(Observer):
        taken = 0

        def after_step(self, model, step):
            Steps.taken += 1

    run = make_run(epochs=epochs, size=16, build=watched(head))
    with pytest.raises(Unsupported, match=reason):
        train(type(run)(run.build, run.how, run.streams, run.elsewhere, (Steps(),)), [ProgressiveResizing()])
    assert Steps.taken == 0


def test_images_too_small_to_shrink_have_no_effect(make_run):
    with pytest.raises(NoEffect, match="images of 8 x 8 are not shrunk"):
        ProgressiveResizing(multiple=8)(make_run())


def test_one_epoch_is_at_full_size_and_says_so(make_run):
    trained = ProgressiveResizing()(make_run(epochs=1, size=16, build=watched()))
    assert {shape[1] for mode, shape in trained.model[0].seen if mode} == {16}
    (remark,) = trained.remarks
    assert "no room" in remark
