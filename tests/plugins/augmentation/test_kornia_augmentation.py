"""kornia's own transforms, seeded by hand, are the reference."""

from __future__ import annotations

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.errors import Unsupported, UsageError
from cnnbench_plugins.augmentation.kornia import Kornia

A = pytest.importorskip("kornia.augmentation")

OPTIONS = {
    "RandomAffine": {"degrees": 20.0, "translate": [0.1, 0.2]},
    "RandomBrightness": {"brightness": [0.5, 1.5]},
    "RandomContrast": {"contrast": [0.5, 1.5]},
    "RandomCrop": {"size": [16, 16], "padding": 2},
    "RandomElasticTransform": {},
    "RandomErasing": {"scale": [0.05, 0.3]},
    "RandomGamma": {"gamma": [0.5, 2.0]},
    "RandomGaussianBlur": {"kernel_size": [3, 3], "sigma": [0.1, 2.0]},
    "RandomGaussianNoise": {"std": 0.3},
    "RandomMotionBlur": {"kernel_size": 3, "angle": 35.0, "direction": 0.5},
    "RandomPerspective": {},
    "RandomPlasmaShadow": {},
    "RandomPosterize": {},
    "RandomRain": {"number_of_drops": [20, 40], "drop_width": [1, 2], "drop_height": [2, 4]},
    "RandomResizedCrop": {"size": [16, 16]},
    "RandomRotation": {"degrees": 30.0},
    "RandomSaltAndPepperNoise": {},
    "RandomSharpness": {},
    "RandomShear": {"shear": 10.0},
    "RandomSolarize": {},
    "RandomThinPlateSpline": {},
    "RandomTranslate": {"translate_x": [-0.2, 0.2], "translate_y": [-0.2, 0.2]},
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def alike(count: int, channels: int) -> torch.Tensor:
    one = torch.rand(1, channels, 16, 16, generator=generator(5))
    return one.expand(count, -1, -1, -1).clone()


def everything() -> tuple[object, ...]:
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPTIONS)
def test_each_image_has_its_own_draw_of_the_given_generator_alone(name, channels):
    images, targets = alike(12, channels), torch.eye(12)
    before, kept = everything(), images.clone()
    technique = Kornia(name, {"p": 1.0} | OPTIONS[name])
    new, labels = technique(images, targets, generator())
    assert everything() == before
    assert torch.equal(images, kept)
    assert torch.equal(labels, targets)
    assert new.shape == images.shape
    assert new.dtype == images.dtype
    assert 0 <= new.min() <= new.max() <= 1
    assert len({image.numpy().tobytes() for image in new}) > 1
    torch.manual_seed(99)
    again = Kornia(name, {"p": 1.0} | OPTIONS[name])
    assert torch.equal(again(images, targets, generator())[0], new)
    assert not torch.equal(again(images, targets, generator(1))[0], new)


def test_a_draw_is_kornias_and_moves_the_generator():
    images, drawn = torch.rand(4, 3, 16, 16, generator=generator(2)), generator()
    technique = Kornia("RandomAffine", {"degrees": 20.0, "translate": [0.1, 0.2], "p": 0.5})
    first, _ = technique(images, torch.eye(4), drawn)
    second, _ = technique(images, torch.eye(4), drawn)
    assert not torch.equal(first, second)
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator())))
        assert torch.equal(A.RandomAffine(20.0, (0.1, 0.2), p=0.5)(images), first)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9), st.sampled_from([1, 3]), st.integers(2, 17), st.integers(2, 17))
def test_odd_sizes_single_images_and_empty_batches(count, channels, height, width):
    images = torch.rand(count, channels, height, width)
    targets = torch.full((count, 5), 0.2)
    for name in ("RandomRotation", "RandomMixUpV2"):
        new, labels = Kornia(name, {"degrees": 30.0} if name == "RandomRotation" else {})(images, targets, generator())
        assert new.shape == images.shape
        torch.testing.assert_close(labels, targets)


def test_mixup_mixes_targets_by_the_share_of_each_partner():
    """Constant images of value i / 7 show which two were mixed, and how."""
    images = (torch.arange(8.0) / 7).view(8, 1, 1, 1).expand(8, 1, 4, 4)
    new, targets = Kornia("RandomMixUpV2", {"lambda_val": [0.2, 0.8]})(images, torch.eye(8), generator())
    torch.testing.assert_close(targets.sum(1), torch.ones(8))
    assert len({round(float(value), 4) for value in targets.diagonal()}) > 3  # each has a share of its own
    torch.testing.assert_close(targets @ images[:, 0, 0, 0], new[:, 0, 0, 0])


def test_no_probability_changes_nothing():
    images = torch.rand(4, 3, 16, 16)
    new, targets = Kornia("RandomRotation", {"degrees": 30.0, "p": 0.0})(images, torch.eye(4), generator())
    assert torch.equal(new, images)
    assert torch.equal(targets, torch.eye(4))


def test_it_moves_between_processes_also_after_use():
    images, technique = torch.rand(4, 3, 16, 16), Kornia("RandomPerspective", {"p": 1.0})
    expected, _ = technique(images, torch.eye(4), generator())
    for other in (pickle.loads(pickle.dumps(technique)), copy.deepcopy(technique)):
        assert torch.equal(other(images, torch.eye(4), generator())[0], expected)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("RandomAfine", {}, UsageError, "unknown kornia transform 'RandomAfine': did you mean 'RandomAffine'[?]"),
        ("RandomAffine", {"degree": 3}, UsageError, "kornia's RandomAffine has no option 'degree': did you mean 'deg"),
        ("RandomAffine", {}, UsageError, "kornia's RandomAffine needs 'degrees' among its options"),
        ("RandomErasing", {"scale": [0.9, 0.1]}, Unsupported, "kornia's RandomErasing can't be made: .*scale"),
        ("RandomMosaic", {}, Unsupported, "kornia's RandomMosaic does not make one image and its target of each"),
        ("RandomCutMixV2", {}, Unsupported, "kornia's RandomCutMixV2 does not make one image and its target of each"),
        ("RandomRotation3D", {}, Unsupported, "kornia's RandomRotation3D does not make one image"),
        ("RandomHue", {"p": 1.0}, Unsupported, "kornia's RandomHue can't take these images: Input size must have"),
        ("RandomJPEG", {"p": 1.0}, Unsupported, "kornia's RandomJPEG can't take these images: Shape mismatch"),
        ("Resize", {"size": [8, 8]}, Unsupported, r"kornia's Resize makes \[4, 1, 8, 8\] of images \[4, 1, 16, 16\]"),
    ],
)
def test_what_it_cannot_do_is_told_on_one_line(name, options, error, message):
    with pytest.raises(error, match=message) as caught:
        Kornia(name, options)(torch.rand(4, 1, 16, 16), torch.eye(4), generator())
    assert "\n" not in str(caught.value)


def test_one_draw_for_a_batch_is_refused():
    with pytest.raises(ValueError, match="same_on_batch = true"):
        Kornia("RandomRotation", {"degrees": 30.0, "same_on_batch": True})


@pytest.mark.gpu
def test_on_a_gpu_the_draws_are_the_same_and_the_states_stay():
    images, drawn = torch.rand(8, 3, 16, 16), torch.Generator("cuda").manual_seed(0)
    technique = Kornia("RandomAffine", {"degrees": 20.0, "p": 1.0})
    state = torch.cuda.get_rng_state()
    new, _ = technique(images.cuda(), torch.eye(8).cuda(), drawn)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    seed = int(torch.randint(2**62, (), generator=torch.Generator("cuda").manual_seed(0), device="cuda"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.testing.assert_close(A.RandomAffine(20.0, p=1.0)(images), new.cpu(), atol=1e-4, rtol=1e-4)
