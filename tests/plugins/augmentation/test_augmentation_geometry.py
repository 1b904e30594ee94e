"""Moved and bent images, sample by sample against torchvision's functional with the same drawn parameters."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from cnnbench.errors import Unsupported
from cnnbench_plugins.augmentation import _draw, _geometry
from cnnbench_plugins.augmentation._blur import gaussian_blur, radius
from cnnbench_plugins.augmentation.distortion import Elastic, Perspective
from cnnbench_plugins.augmentation.geometric import Affine, Scale, Shear
from cnnbench_plugins.augmentation.shift import Crop, Translate

SHAPES = [(5, 3, 12, 9), (4, 1, 7, 7), (1, 3, 8, 11), (3, 1, 28, 28)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(shape, generator=generator(7)), torch.eye(4)[torch.arange(shape[0]) % 4]


def reference(sample, degrees=0.0, right=0.0, down=0.0, scale=1.0, shear_x=0.0, shear_y=0.0, **options):
    mode = InterpolationMode(options.pop("interpolation", "bilinear"))
    return tv.affine(sample, degrees, [right, down], scale, [shear_x, shear_y], mode, **options)


def equal_each(out, images, parameters, **options):
    for index, sample in enumerate(images):
        drawn = {name: float(values[index]) for name, values in parameters.items()}
        torch.testing.assert_close(out[index], reference(sample, **drawn, **options), atol=2e-5, rtol=1e-5)


def draw_affine(images, drawing):
    return {
        "degrees": _draw.uniform(images, -180, 180, drawing),
        "right": _draw.uniform(images, -3, 3, drawing),
        "down": _draw.uniform(images, -3, 3, drawing),
        "scale": _draw.uniform(images, 0.5, 1.5, drawing),
        "shear_x": _draw.uniform(images, -30, 30, drawing),
        "shear_y": _draw.uniform(images, -30, 30, drawing),
    }


@every_shape
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("center", [None, (0.0, 0.0), (2.5, 6.0)])
def test_affine_equals_torchvision(shape, interpolation, center):
    images, _ = make(shape)
    parameters = draw_affine(images, generator())
    out = _geometry.affine(images, **parameters, center=center, interpolation=interpolation)
    equal_each(out, images, parameters, interpolation=interpolation, center=center and list(center))


@every_shape
def test_filled_affine_is_that_of_an_image_with_a_wide_rim(shape):
    images, _ = make(shape)
    parameters = draw_affine(images, generator())
    out = _geometry.affine(images, **parameters, fill=0.7)
    rim = 60
    wide = torch.nn.functional.pad(images, [rim] * 4, value=0.7)
    expected = _geometry.affine(wide, **parameters)[..., rim:-rim, rim:-rim]
    torch.testing.assert_close(out, expected, atol=2e-5, rtol=0)
    # Where no pixel is blended with the rim torchvision's fill is the same.
    nearest = _geometry.affine(images, **parameters, fill=0.7, interpolation="nearest")
    equal_each(nearest, images, parameters, interpolation="nearest", fill=0.7)


def test_plain_numbers_stand_for_all_samples():
    images, _ = make((3, 3, 9, 9))
    out = _geometry.affine(images, degrees=20, scale=0.8, shear_y=5.0)
    equal_each(out, images, {"degrees": [20] * 3, "scale": [0.8] * 3, "shear_y": [5] * 3})


@every_shape
def test_nothing_to_do_is_the_identity(shape):
    images, _ = make(shape)
    height, width = shape[-2:]
    corners = torch.tensor([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]]).expand(shape[0], 4, 2)
    for out in (
        _geometry.affine(images),
        _geometry.rotate(images, torch.zeros(shape[0])),
        _geometry.perspective(images, corners),
        _geometry.elastic(images, torch.zeros(shape[0], 2, height, width)),
    ):
        torch.testing.assert_close(out, images, atol=1e-5, rtol=0)


@every_shape
def test_scale_equals_torchvision(shape):
    images, targets = make(shape)
    factors = _draw.uniform(images, 0.6, 1.4, generator())
    equal_each(Scale(strength=0.4)(images, targets, generator())[0], images, {"scale": factors})


@every_shape
def test_shear_equals_torchvision(shape):
    images, targets = make(shape)
    drawing = generator()
    angles = {name: _draw.uniform(images, -25, 25, drawing) for name in ("shear_x", "shear_y")}
    equal_each(Shear(degrees=25)(images, targets, generator())[0], images, angles)


@every_shape
def test_affine_technique_equals_torchvision(shape):
    images, targets = make(shape)
    height, width = shape[-2:]
    drawing = generator()
    limits = {"degrees": 30, "right": 0.2 * width, "down": 0.2 * height, "scale": 0.3, "shear_x": 12, "shear_y": 12}
    parameters = {name: _draw.uniform(images, -limit, limit, drawing) for name, limit in limits.items()}
    parameters["scale"] = parameters["scale"] + 1
    out, _ = Affine(degrees=30, translate=0.2, scale=0.3, shear=12)(images, targets, generator())
    equal_each(out, images, parameters)


@pytest.mark.parametrize("option", ["degrees", "translate", "scale", "shear"])
def test_affine_leaves_out_what_is_zero(option):
    off = {"degrees": 0, "translate": 0, "scale": 0, "shear": 0}
    with pytest.raises(ValueError, match="at least one of degrees"):
        Affine(**off)
    images, targets = make((6, 1, 12, 12))
    out, _ = Affine(**{**off, option: 0.4})(images, targets, generator())
    assert not torch.allclose(out, images, atol=1e-4)
    drawing = generator()
    if option == "translate":
        drawn = {name: _draw.uniform(images, -0.4 * 12, 0.4 * 12, drawing) for name in ("right", "down")}
    elif option == "shear":
        drawn = {name: _draw.uniform(images, -0.4, 0.4, drawing) for name in ("shear_x", "shear_y")}
    else:
        drawn = {option: (option == "scale") + _draw.uniform(images, -0.4, 0.4, drawing)}
    equal_each(out, images, drawn)


@every_shape
def test_perspective_equals_torchvision(shape):
    images, targets = make(shape)
    height, width = shape[-2:]
    drawing = generator()
    x = [_draw.uniform(images, 0, 0.5 * width / 2, drawing) for _ in range(4)]
    y = [_draw.uniform(images, 0, 0.5 * height / 2, drawing) for _ in range(4)]
    out, _ = Perspective(distortion=0.5)(images, targets, generator())
    start = [[0, 0], [width, 0], [width, height], [0, height]]
    for i, sample in enumerate(images):
        end = [
            [x[0][i].item(), y[0][i].item()],
            [width - x[1][i].item(), y[1][i].item()],
            [width - x[2][i].item(), height - y[2][i].item()],
            [x[3][i].item(), height - y[3][i].item()],
        ]
        torch.testing.assert_close(out[i], tv.perspective(sample, start, end), atol=5e-5, rtol=1e-5)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), height=st.integers(1, 12), width=st.integers(1, 12))
def test_perspective_of_any_size_is_finite_and_in_range(seed, height, width):
    images = torch.rand(16, 1, height, width, generator=generator(seed))
    out, _ = Perspective(distortion=0.6)(images, torch.ones(16, 1), generator(seed))
    assert out.isfinite().all()
    assert out.min() >= 0
    assert out.max() <= images.max() + 1e-5


def test_perspective_is_black_beyond_the_horizon():
    # The sides meet in the middle of the fifth row of pixels, where the map divides by zero.
    corners = torch.tensor([[[0.0, 0.0], [8.0, 0.0], [6.0, 2.25], [2.0, 2.25]]])
    out = _geometry.perspective(torch.ones(1, 1, 8, 8), corners)
    assert out[0, 0, 0, 1:-1].min() > 0.5
    assert (out[:, :, 4:] == 0).all()


@every_shape
def test_elastic_equals_torchvision_on_the_same_field(shape):
    images, targets = make(shape)
    height, width = shape[-2:]
    alpha, sigma = 10.0, 1.2
    out, _ = Elastic(alpha=alpha, sigma=sigma)(images, targets, generator())
    field = 2 * torch.rand(shape[0], 2, height, width, generator=generator()) - 1
    kernel = [2 * radius(sigma, side) + 1 for side in (width, height)]
    pixels = alpha * tv.gaussian_blur(field, kernel, [sigma, sigma])
    relative = pixels * torch.tensor([2 / width, 2 / height]).view(1, 2, 1, 1)
    for sample, result, displacement in zip(images, out, relative, strict=True):
        expected = tv.elastic(sample, displacement.permute(1, 2, 0)[None])
        torch.testing.assert_close(result, expected, atol=5e-5, rtol=1e-5)


def test_elastic_displaces_by_as_many_pixels_as_documented():
    # Read the field off an image whose values are its columns' numbers.
    ramp = torch.arange(64.0).expand(40, 1, 64, 64)
    out, _ = Elastic()(ramp, torch.ones(40, 1), generator())
    moved = (out - ramp)[..., 16:-16, 16:-16]
    assert moved.std().item() == pytest.approx(34 / 4 / np.sqrt(12 * np.pi), rel=0.1)  # 1.4 pixels
    smooth = scipy.ndimage.gaussian_filter(2 * np.random.default_rng(0).random((200, 200)) - 1, 4.0)
    assert moved.std().item() == pytest.approx(34 * smooth.std(), rel=0.1)


@settings(deadline=None, max_examples=30)
@given(height=st.integers(1, 20), width=st.integers(1, 20), sigma=st.floats(0.05, 12))
def test_elastic_takes_any_size_and_grain(height, width, sigma):
    images = torch.rand(2, 1, height, width, generator=generator())
    out, _ = Elastic(alpha=5, sigma=sigma)(images, torch.ones(2, 1), generator())
    assert out.isfinite().all()
    assert out.min() >= 0
    assert out.max() <= images.max() + 1e-5


@every_shape
@pytest.mark.parametrize(
    ("fill", "mode"), [("zeros", "constant"), ("reflect", "reflect"), ("edge", "edge")], ids=lambda v: v
)
@pytest.mark.parametrize("padding", [1, 3, 6])
def test_crop_equals_torchvisions_pad_and_crop(shape, fill, mode, padding):
    images, targets = make(shape)
    drawing = generator()
    left = _draw.integers(images, 0, 2 * padding, drawing).tolist()
    top = _draw.integers(images, 0, 2 * padding, drawing).tolist()
    out, _ = Crop(padding=padding, fill=fill)(images, targets, generator())
    for sample, result, x, y in zip(images, out, left, top, strict=True):
        padded = tv.pad(sample, [padding] * 4, padding_mode=mode)
        assert torch.equal(result, tv.crop(padded, y, x, *shape[-2:]))


def test_crop_reaches_every_offset_equally_often():
    images = torch.zeros(4500, 1, 3, 3)
    images[:, :, 1, 1] = 1
    out, _ = Crop(padding=1)(images, torch.ones(4500, 1), generator())
    hits = out.sum((0, 1)).flatten().numpy()
    assert hits.sum() == 4500
    assert scipy.stats.chisquare(hits).pvalue > 1e-3


def test_crop_with_zeros_shifts_as_translate_does():
    images, targets = make((40, 1, 9, 8))
    shifted = {
        tuple(out.flatten().tolist())
        for out in Crop(padding=2)(images[:1].repeat(400, 1, 1, 1), targets, generator())[0]
    }
    moved = {
        tuple(out.flatten().tolist())
        for out in Translate(pixels=2)(images[:1].repeat(400, 1, 1, 1), targets, generator())[0]
    }
    assert shifted == moved
    assert len(shifted) == 25


def test_crop_says_when_a_reflection_is_too_wide():
    images, targets = make((2, 3, 8, 5))
    Crop(padding=4, fill="reflect")(images, targets, generator())
    with pytest.raises(Unsupported, match="use padding up to 4, or fill 'edge'"):
        Crop(padding=5, fill="reflect")(images, targets, generator())
    Crop(padding=5, fill="edge")(images, targets, generator())


@every_shape
@pytest.mark.parametrize("largest", [0.3, 1.0, 3.0])
def test_gaussian_smoothing_equals_torchvision(shape, largest):
    images, _ = make(shape)
    sigmas = _draw.uniform(images, 0.1, largest, generator())
    out = gaussian_blur(images, sigmas, largest)
    kernel = [2 * radius(largest, side) + 1 for side in reversed(shape[-2:])]
    for sample, result, sigma in zip(images, out, sigmas.tolist(), strict=True):
        torch.testing.assert_close(result, tv.gaussian_blur(sample, kernel, [sigma, sigma]), atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_gaussian_smoothing_equals_scipy(sigma):
    images, _ = make((2, 1, 20, 17))
    out = gaussian_blur(images.double(), torch.full((2,), sigma), sigma)
    for sample, result in zip(images[:, 0].double().numpy(), out[:, 0].numpy(), strict=True):
        expected = scipy.ndimage.gaussian_filter(sample, sigma, mode="mirror", truncate=4.0)
        np.testing.assert_allclose(result, expected, atol=1e-6)
