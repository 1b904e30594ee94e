"""Changed colours and tones, sample by sample against torchvision's functional with the same drawn parameters."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from cnnbench.errors import NoEffect, Unsupported
from cnnbench_plugins.augmentation import _color, _draw
from cnnbench_plugins.augmentation.color import Brightness, ColorJitter, Contrast, Grayscale, Hue, Saturation
from cnnbench_plugins.augmentation.tone import Equalize, Posterize, Solarize

SHAPES = [(5, 3, 17, 18), (4, 1, 19, 19), (1, 3, 16, 21), (9, 3, 32, 32)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def kinds(shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Images of every kind that the formulas tell apart."""
    noise = torch.rand(shape, generator=generator(7))
    bytes_ = torch.randint(0, 256, shape, generator=generator(8)) / 255
    dark = bytes_.clone()
    dark[..., 5:, :] = 0  # mostly one level, as digits are
    gray = noise[:, :1].expand(shape).clone()
    return {
        "any value": noise,
        "8-bit values": bytes_,
        "mostly black": dark,
        "gray in three channels": gray,
        "flat": torch.full(shape, 100 / 255),
        "low contrast": 0.4 + 0.2 * noise,
        "highest channels alike": torch.cat([noise[:, :1]] * (shape[1] - 1) + [noise[:, :1] * 0.5], 1),
    }


def equal_each(out, images, reference, *parameters, atol=1e-6):
    assert out.shape == images.shape
    for index, sample in enumerate(images):
        expected = reference(sample, *(p[index].item() for p in parameters))
        torch.testing.assert_close(out[index], expected, atol=atol, rtol=1e-5)


@every_shape
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("adjust_brightness", 0.0, 2.5),
        ("adjust_contrast", 0.0, 2.5),
        ("adjust_saturation", 0.0, 2.5),
        ("adjust_sharpness", 0.0, 2.5),
        ("adjust_hue", -0.5, 0.5),
        ("solarize", 0.0, 1.0),
    ],
)
def test_operations_with_a_strength_equal_torchvision(name, low, high, shape):
    strengths = torch.linspace(low, high, shape[0]) if shape[0] > 1 else torch.tensor([0.3])
    for images in kinds(shape).values():
        out = getattr(_color, name)(images, strengths)
        # Hue is a quotient of differences, which cancel where colours are pale.
        equal_each(out, images, getattr(tv, name), strengths, atol=2e-5 if name == "adjust_hue" else 1e-6)


@every_shape
@pytest.mark.parametrize("name", ["invert", "autocontrast", "equalize"])
def test_operations_without_a_strength_equal_torchvision(name, shape):
    for images in kinds(shape).values():
        equal_each(getattr(_color, name)(images), images, getattr(tv, name))


@every_shape
def test_posterize_equals_torchvision(shape):
    bits = torch.arange(shape[0]) % 9
    for images in kinds(shape).values():
        equal_each(_color.posterize(images, bits), images, tv.posterize, bits)


@pytest.mark.parametrize("bits", [1, 4, 7])
def test_posterizing_floats_is_within_a_level_of_posterizing_bytes(bits):
    images = torch.arange(256).view(1, 1, 16, 16)
    out = _color.posterize(images / 255, torch.tensor([bits]))
    of_bytes = tv.posterize(images.to(torch.uint8), bits) / 255
    assert (out - of_bytes).abs().max() <= 0.5**bits
    assert len(out.unique()) == len(of_bytes.unique()) == 2**bits


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_equalize_equals_torchvision_at_any_size(data):
    shape = (2, 3, data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40)))
    levels = data.draw(st.integers(1, 256))
    images = torch.randint(0, levels, shape, generator=generator(data.draw(st.integers(0, 99)))) / 255
    equal_each(_color.equalize(images), images, tv.equalize)


@every_shape
def test_neutral_strengths_are_the_identity(shape):
    one = torch.ones(shape[0])
    for images in kinds(shape).values():
        for adjust in (_color.adjust_brightness, _color.adjust_contrast, _color.adjust_saturation):
            torch.testing.assert_close(adjust(images, one), images, atol=1e-6, rtol=0)
        torch.testing.assert_close(_color.adjust_sharpness(images, one), images)
        for turn in (-1.0, 0.0, 1.0):
            torch.testing.assert_close(_color.adjust_hue(images, turn * one), images, atol=5e-6, rtol=0)
        torch.testing.assert_close(_color.solarize(images, 1.01 * one), images, atol=0, rtol=0)
        torch.testing.assert_close(_color.invert(_color.invert(images)), images)


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (7, 2), (3, 3)])
def test_sharpness_of_narrow_images_equals_torchvision(size):
    images = torch.rand(3, 3, *size, generator=generator())
    factors = torch.tensor([0.0, 0.5, 2.0])
    equal_each(_color.adjust_sharpness(images, factors), images, tv.adjust_sharpness, factors)


def test_operations_leave_their_argument_alone():
    for images in kinds((3, 3, 16, 16)).values():
        before = images.clone()
        strengths = torch.tensor([0.1, 0.3, 0.5])
        for name in ("brightness", "contrast", "saturation", "sharpness", "hue"):
            getattr(_color, f"adjust_{name}")(images, strengths)
        _color.solarize(images, strengths)
        _color.posterize(images, torch.tensor([1, 2, 3]))
        for operation in (_color.invert, _color.autocontrast, _color.equalize):
            operation(images)
        assert torch.equal(images, before)


@every_shape
@pytest.mark.parametrize(
    ("technique", "reference"),
    [
        (Brightness(strength=0.7), tv.adjust_brightness),
        (Contrast(strength=0.7), tv.adjust_contrast),
        (Saturation(strength=0.7), tv.adjust_saturation),
    ],
    ids=["brightness", "contrast", "saturation"],
)
def test_single_adjustments_equal_torchvision(technique, reference, shape):
    images = kinds(shape)["8-bit values"]
    targets = torch.eye(shape[0])
    if isinstance(technique, Saturation) and shape[1] == 1:
        with pytest.raises(NoEffect, match="the images are gray"):
            technique(images, targets, generator())
        return
    factors = _draw.uniform(images, 0.3, 1.7, generator())
    equal_each(technique(images, targets, generator())[0], images, reference, factors)


def test_strengths_above_one_draw_no_negative_factors():
    images = torch.full((3000, 1, 1, 2), 0.3)
    out, _ = Brightness(strength=2.0)(images, torch.ones(3000, 1), generator())
    # Uniform in [0, 3]: nothing is black by a cut, and the mean is that of 0.3 f before f x is cut at 1.
    assert (out == 0).float().mean() < 0.01
    assert out.mean().item() == pytest.approx(0.45, abs=0.01)


def test_hue_equals_torchvision():
    images = kinds((9, 3, 16, 16))["8-bit values"]
    turns = _draw.uniform(images, -0.3, 0.3, generator())
    equal_each(Hue(turn=0.3)(images, torch.eye(9), generator())[0], images, tv.adjust_hue, turns, atol=2e-5)


@pytest.mark.parametrize(
    ("technique", "reference"),
    [
        (Grayscale(p=0.4), lambda sample: tv.rgb_to_grayscale(sample, num_output_channels=3)),
        (Solarize(threshold=0.6, p=0.4), lambda sample: tv.solarize(sample, 0.6)),
        (Posterize(bits=3, p=0.4), lambda sample: tv.posterize(sample, 3)),
        (Equalize(p=0.4), tv.equalize),
    ],
    ids=["grayscale", "solarize", "posterize", "equalize"],
)
def test_exactly_the_drawn_samples_are_changed(technique, reference):
    images = kinds((20, 3, 17, 18))["any value"]
    chosen = _draw.uniform(images, 0, 1, generator()) < 0.4
    assert 0 < chosen.sum() < 20
    out, _ = technique(images, torch.eye(20), generator())
    for sample, result, change in zip(images, out, chosen, strict=True):
        if change:
            torch.testing.assert_close(result, reference(sample), atol=1e-6, rtol=1e-5)
        else:
            assert torch.equal(result, sample)


@pytest.mark.parametrize("technique", [Grayscale, Solarize, Posterize, Equalize])
@pytest.mark.parametrize("p", [0.25, 1.0])
def test_the_share_of_changed_samples_is_p(technique, p):
    images = torch.rand(1000, 3, 16, 16, generator=generator())
    images[:, :, 0, 0] = 1  # one pixel at the top, so that every image can be equalized
    out, _ = technique(p=p)(images, torch.ones(1000, 1), generator(3))
    share = (out != images).flatten(1).any(1).float().mean().item()
    assert share == pytest.approx(p, abs=0.04 if p < 1 else 0)


def test_solarize_at_a_threshold_of_one_inverts_white_alone():
    images = torch.tensor([0.0, 0.5, 254 / 255, 1.0]).view(1, 1, 2, 2)
    out, _ = Solarize(threshold=1.0, p=1.0)(images, torch.ones(1, 1), generator())
    torch.testing.assert_close(out.flatten(), torch.tensor([0.0, 0.5, 254 / 255, 0.0]))


def test_colour_operations_say_what_they_need():
    gray, many = torch.rand(2, 1, 16, 16), torch.rand(2, 4, 16, 16)
    targets = torch.eye(2)
    for technique in (Saturation(), Hue(), Grayscale(), ColorJitter(brightness=0, contrast=0)):
        with pytest.raises(NoEffect, match="gray"):
            technique(gray, targets, generator())
        with pytest.raises(Unsupported, match="these images have 4"):
            technique(many, targets, generator())
    ColorJitter()(gray, targets, generator())
    with pytest.raises(Unsupported, match="these images have 4"):
        Contrast()(many, targets, generator())
