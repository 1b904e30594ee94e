"""Each sample's result against torchvision's functional with the same drawn parameters."""

from __future__ import annotations

from itertools import pairwise

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from cnnbench_plugins.augmentation import _draw
from cnnbench_plugins.augmentation._color import adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation
from cnnbench_plugins.augmentation._geometry import rotate, translate
from cnnbench_plugins.augmentation.color import ColorJitter
from cnnbench_plugins.augmentation.erasing import Cutout, erase
from cnnbench_plugins.augmentation.flip import HFlip, VFlip
from cnnbench_plugins.augmentation.geometric import Rotate
from cnnbench_plugins.augmentation.mixing import Mixup, mix
from cnnbench_plugins.augmentation.noise import GaussianNoise
from cnnbench_plugins.augmentation.shift import Translate

SHAPES = [(5, 3, 12, 9), (4, 1, 7, 7), (1, 3, 8, 11)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(shape: tuple[int, int, int, int], seed: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(shape, generator=generator(seed))
    images[..., :2, :2] = 0.5  # gray pixels, whose hue is not defined
    targets = torch.eye(4)[torch.arange(shape[0]) % 4]
    return images, targets


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("technique", "reference"), [(HFlip, tv.horizontal_flip), (VFlip, tv.vertical_flip)])
def test_flip_mirrors_exactly_the_drawn_samples(technique, reference, shape):
    images, targets = make(shape)
    chosen = _draw.uniform(images, 0, 1, generator()) < 0.5
    out, same = technique(p=0.5)(images, targets, generator())
    for sample, result, mirrored in zip(images, out, chosen, strict=True):
        assert torch.equal(result, reference(sample) if mirrored else sample)
    assert torch.equal(same, targets)


def test_flip_probability_is_p():
    images = torch.rand(4000, 1, 1, 2, generator=generator())
    out, _ = HFlip(p=0.3)(images, torch.ones(4000, 1), generator())
    share = (out != images).flatten(1).any(1).float().mean().item()
    assert share == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("shape", SHAPES)
def test_rotate_equals_torchvision(shape):
    images, targets = make(shape)
    angles = _draw.uniform(images, -40, 40, generator())
    out, _ = Rotate(degrees=40)(images, targets, generator())
    for sample, result, angle in zip(images, out, angles, strict=True):
        expected = tv.rotate(sample[None], angle.item(), InterpolationMode.BILINEAR)[0]
        torch.testing.assert_close(result, expected, atol=2e-5, rtol=1e-5)


def test_rotation_by_a_right_angle_is_exact():
    images, _ = make((2, 3, 8, 8))
    out = rotate(images, torch.tensor([90.0, -90.0]))
    torch.testing.assert_close(out[0], images[0].rot90(1, (-2, -1)), atol=1e-5, rtol=0)
    torch.testing.assert_close(out[1], images[1].rot90(-1, (-2, -1)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pixels", [1, 3, 20])
def test_translate_is_a_random_crop_of_the_padded_image(shape, pixels):
    images, targets = make(shape)
    drawing = generator()
    right = _draw.integers(images, -pixels, pixels, drawing)
    down = _draw.integers(images, -pixels, pixels, drawing)
    out, _ = Translate(pixels=pixels)(images, targets, generator())
    for sample, result, x, y in zip(images, out, right.tolist(), down.tolist(), strict=True):
        padded = tv.pad(sample, [pixels] * 4)
        assert torch.equal(result, tv.crop(padded, pixels - y, pixels - x, *shape[-2:]))
        moved = tv.affine(sample, 0.0, [x, y], 1.0, [0.0, 0.0])
        torch.testing.assert_close(result, moved)


@settings(deadline=None, max_examples=30)
@given(x=st.integers(-4, 4), y=st.integers(-4, 4), height=st.integers(1, 9), width=st.integers(1, 9))
def test_translate_moves_right_and_down(x, y, height, width):
    image = torch.rand(1, 1, height, width, generator=generator())
    out = translate(image, torch.tensor([x]), torch.tensor([y]), 4)
    for row in range(height):
        for column in range(width):
            inside = 0 <= row - y < height and 0 <= column - x < width
            assert out[0, 0, row, column] == (image[0, 0, row - y, column - x] if inside else 0)


def test_shifts_reach_both_ends():
    images = torch.zeros(500, 1, 1, 1)
    assert set(_draw.integers(images, -2, 2, generator()).tolist()) == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("ours", "reference", "low", "high"),
    [
        (adjust_brightness, tv.adjust_brightness, 0.0, 2.0),
        (adjust_contrast, tv.adjust_contrast, 0.0, 2.0),
        (adjust_saturation, tv.adjust_saturation, 0.0, 2.0),
        (adjust_hue, tv.adjust_hue, -0.5, 0.5),
    ],
)
def test_color_adjustments_equal_torchvision(ours, reference, low, high, shape):
    images, _ = make(shape)
    factors = torch.linspace(low, high, shape[0])
    out = ours(images, factors)
    for sample, result, factor in zip(images, out, factors, strict=True):
        torch.testing.assert_close(result, reference(sample, factor.item()), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_color_jitter_chains_the_adjustments_with_each_samples_own_factors(shape):
    images, targets = make(shape)
    drawing = generator()
    factors = [_draw.uniform(images, max(0, 1 - s), 1 + s, drawing) for s in (0.3, 0.5, 1.5)]
    factors.append(_draw.uniform(images, -0.2, 0.2, drawing))
    out, _ = ColorJitter(brightness=0.3, contrast=0.5, saturation=1.5, hue=0.2)(images, targets, generator())
    chain = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for index, result in enumerate(out):
        expected = images[index]
        for adjust, factor in zip(chain, factors, strict=True):
            expected = adjust(expected, factor[index].item())
        torch.testing.assert_close(result, expected, atol=5e-5, rtol=1e-4)


def test_color_jitter_refuses_to_do_nothing():
    with pytest.raises(ValueError, match="at least one of brightness"):
        ColorJitter(brightness=0, contrast=0, saturation=0, hue=0)


def test_gaussian_noise_equals_torchvision_on_the_same_draw():
    images, targets = make((5, 3, 12, 9))
    out, _ = GaussianNoise(std=0.3)(images, targets, generator(3))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = tv.gaussian_noise(images, 0.0, 0.3, clip=True)
    torch.testing.assert_close(out, expected)
    assert out.min() == 0
    assert out.max() == 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 4, 5, 40])
def test_cutout_equals_torchvisions_erase(shape, size):
    images, targets = make(shape)
    drawing = generator()
    top = _draw.integers(images, 0, shape[2] - 1, drawing) - size // 2
    left = _draw.integers(images, 0, shape[3] - 1, drawing) - size // 2
    out, _ = Cutout(size=size)(images, targets, generator())
    mean = images.mean((0, 2, 3)).view(-1, 1, 1)
    for sample, result, y, x in zip(images, out, top.tolist(), left.tolist(), strict=True):
        y0, x0 = max(y, 0), max(x, 0)
        expected = tv.erase(sample, y0, x0, min(y + size, shape[2]) - y0, min(x + size, shape[3]) - x0, mean)
        torch.testing.assert_close(result, expected)


def test_cutouts_centre_is_uniform_over_the_pixels():
    images = torch.ones(3000, 1, 3, 4)
    zero = torch.zeros(1, 1, 1, 1)
    drawing = generator()
    top, left = _draw.integers(images, 0, 2, drawing), _draw.integers(images, 0, 3, drawing)
    hidden = (erase(images, top, left, 1, zero) == 0).sum(0)
    assert hidden.sum() == 3000
    assert scipy.stats.chisquare(hidden.flatten().numpy()).pvalue > 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_mixup_blends_images_and_targets_alike(shape):
    images, targets = make(shape)
    drawing = generator()
    partners = torch.randperm(shape[0], generator=drawing)
    shares = _draw.beta(images, 0.4, drawing)
    out, mixed = Mixup(alpha=0.4)(images, targets, generator())
    for i, (j, share) in enumerate(zip(partners.tolist(), shares.tolist(), strict=True)):
        torch.testing.assert_close(out[i], share * images[i] + (1 - share) * images[j])
        torch.testing.assert_close(mixed[i], share * targets[i] + (1 - share) * targets[j])


def test_mix_keeps_the_sample_at_a_share_of_one():
    images, targets = make((4, 1, 3, 3))
    out, mixed = mix(images, targets, torch.tensor([1, 2, 3, 0]), torch.ones(4))
    assert torch.equal(out, images)
    assert torch.equal(mixed, targets)


@pytest.mark.parametrize("alpha", [0.02, 0.2, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(alpha):
    shares = _draw.beta(torch.zeros(4000, 1, 1, 1), alpha, generator(1)).double()
    assert shares.isfinite().all()
    # float32 piles up at 1 where alpha is small; compare away from the ends.
    for low, high in pairwise([0.0, 0.05, 0.3, 0.5, 0.7, 0.95, 1.0 + 1e-9]):
        expected = scipy.stats.beta.cdf(high, alpha, alpha) - scipy.stats.beta.cdf(low, alpha, alpha)
        assert ((shares >= low) & (shares < high)).double().mean().item() == pytest.approx(expected, abs=0.03)
    if alpha >= 1:
        assert scipy.stats.kstest(shares.numpy(), scipy.stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_uniform_draws_cover_their_range():
    draws = _draw.uniform(torch.zeros(4000, 1, 1, 1), -3, 5, generator(2))
    assert scipy.stats.kstest(draws.numpy(), scipy.stats.uniform(-3, 8).cdf).pvalue > 1e-3
