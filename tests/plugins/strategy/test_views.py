"""Averaging over views of an image at inference."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import functional as reference

from cnnbench.artifact import load_model, save_model
from cnnbench.stages.profile import profile
from cnnbench.stages.train import train
from cnnbench_plugins.strategy._combined import ViewAverage, views
from cnnbench_plugins.strategy.ensembles import DeepEnsemble
from cnnbench_plugins.strategy.views import ViewAveraging


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 1, 6, 7, generator=torch.Generator().manual_seed(4))


def expected_views(images: torch.Tensor, hflip: bool, shift: int) -> list[torch.Tensor]:
    """By torchvision: flip, and crops of the image padded with its edge."""
    found = [images, reference.horizontal_flip(images)] if hflip else [images]
    height, width = images.shape[-2:]
    moved = []
    for image in found if shift else []:
        padded = reference.pad(image, [shift], padding_mode="edge")
        for top, left in ((2 * shift, shift), (0, shift), (shift, 2 * shift), (shift, 0)):
            moved.append(reference.crop(padded, top, left, height, width))
    return found + moved


@pytest.mark.parametrize(("hflip", "shift", "count"), [(True, 0, 2), (False, 2, 5), (True, 1, 10), (False, 9, 5)])
def test_views_are_torchvisions(images, hflip, shift, count):
    found = views(images, hflip=hflip, shift=shift)
    assert len(found) == count
    for view, expected in zip(found, expected_views(images, hflip, shift), strict=True):
        torch.testing.assert_close(view, expected)


def test_a_move_repeats_the_edge():
    row = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    moved = [view.flatten().tolist() for view in views(row, hflip=False, shift=1)]
    assert moved == [[1, 2, 3], [1, 2, 3], [1, 2, 3], [2, 3, 3], [1, 1, 2]]


@pytest.mark.parametrize(("hflip", "shift"), [(True, 0), (True, 1)])
def test_the_answer_is_the_mean_probability_over_the_views(make_run, hflip, shift):
    run = make_run()
    trained = ViewAveraging(hflip=hflip, shift=shift)(run)
    alone = run.fit().model
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean = torch.stack([alone(view).softmax(1) for view in expected_views(images, hflip, shift)]).mean(0)
        found = trained.model(images)
    torch.testing.assert_close(found.exp(), mean)
    assert (mean - alone(images).softmax(1)).abs().max() > 1e-4


def test_mirrored_images_get_the_same_answer(make_run):
    model = ViewAveraging()(make_run(epochs=1)).model
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(images.flip(-1)), model(images))


@pytest.mark.parametrize(("hflip", "shift", "count"), [(True, 0, 2), (True, 1, 10)])
def test_every_view_is_paid_for(make_run, hflip, shift, count):
    run = make_run(epochs=1)
    images = torch.rand(3, 1, 8, 8)
    alone = profile(run.fit().model, images).metrics
    found = profile(ViewAveraging(hflip=hflip, shift=shift)(run).model, images).metrics
    assert found["flops"] == count * alone["flops"]
    assert found["params"] == alone["params"]


def test_views_of_an_ensemble(make_run, tmp_path):
    run = make_run(epochs=1)
    model = train(run, [ViewAveraging(), DeepEnsemble(k=2)]).model
    save_model(tmp_path / "model.pt", model, nn.Identity())
    images = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(copy.deepcopy(load_model(tmp_path / "model.pt").model)(images), model(images))
    assert profile(model, images).metrics["flops"] == 4 * profile(run.fit().model, images).metrics["flops"]


def test_colour_odd_sizes_channels_last_and_autocast():
    model = ViewAverage(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)), hflip=True, shift=1)
    images = torch.rand(2, 3, 5, 9).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        answer = model(images)
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer.exp().sum(1), torch.ones(2))


def test_a_single_view_is_refused():
    with pytest.raises(ValueError, match="only one view"):
        ViewAveraging(hflip=False)
