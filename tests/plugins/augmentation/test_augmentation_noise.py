"""Impulse noise by its moments, blur against torchvision's functional with the same drawn parameters."""

from __future__ import annotations

import pytest
import scipy.stats
import torch
from torchvision.transforms.v2 import functional as tv

from cnnbench_plugins.augmentation import _draw
from cnnbench_plugins.augmentation._blur import radius
from cnnbench_plugins.augmentation.blur import GaussianBlur
from cnnbench_plugins.augmentation.noise import SaltPepper


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("amount", [0.03, 0.4, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_salt_and_pepper_strike_as_often_as_asked(amount, channels):
    images = torch.full((40, channels, 30, 25), 0.5)
    out, _ = SaltPepper(amount=amount)(images, torch.ones(40, 1), generator())
    assert set(out.unique().tolist()) <= {0.0, 0.5, 1.0}
    pixels = out[:, 0].numel()
    for value, chance in ((0.0, amount / 2), (1.0, amount / 2)):
        hit = int((out[:, 0] == value).sum())
        assert scipy.stats.binomtest(hit, pixels, chance).pvalue > 1e-3
    # Black and white, never a colour.
    assert (out == out[:, :1]).all()


def test_salt_and_pepper_fall_anywhere_and_elsewhere_in_every_sample():
    images = torch.full((2000, 1, 4, 4), 0.5)
    out, _ = SaltPepper(amount=0.5)(images, torch.ones(2000, 1), generator(1))
    struck = (out != 0.5).float()
    assert scipy.stats.chisquare(struck.sum((0, 1)).flatten().numpy()).pvalue > 1e-3
    neighbours = torch.corrcoef(struck.flatten(1).T)
    assert (neighbours - torch.eye(16)).abs().max() < 0.1


def test_salt_and_pepper_leave_the_other_pixels_as_they_were():
    images = 0.1 + 0.8 * torch.rand(8, 3, 12, 12, generator=generator())
    out, _ = SaltPepper(amount=0.2)(images, torch.ones(8, 1), generator())
    struck = ((out == 0) | (out == 1)).all(1, keepdim=True)
    assert torch.equal(out.masked_fill(struck, 0), images.masked_fill(struck, 0))


@pytest.mark.parametrize("shape", [(12, 3, 12, 9), (12, 1, 7, 7), (12, 3, 32, 32)], ids=str)
@pytest.mark.parametrize("widest", [0.8, 2.0])
def test_blur_equals_torchvision_for_the_drawn_samples(shape, widest):
    images = torch.rand(shape, generator=generator(7))
    drawing = generator()
    sigmas = _draw.uniform(images, 0.2, widest, drawing)
    chosen = _draw.uniform(images, 0, 1, drawing) < 0.5
    assert 0 < chosen.sum() < 12
    out, _ = GaussianBlur(sigma_min=0.2, sigma_max=widest)(images, torch.eye(12), generator())
    kernel = [2 * radius(widest, side) + 1 for side in reversed(shape[-2:])]
    for sample, result, sigma, change in zip(images, out, sigmas.tolist(), chosen, strict=True):
        if change:
            torch.testing.assert_close(result, tv.gaussian_blur(sample, kernel, [sigma, sigma]), atol=5e-6, rtol=1e-5)
        else:
            assert torch.equal(result, sample)


def test_blur_keeps_the_mean_level_of_flat_images_and_loses_detail():
    flat = torch.full((4, 1, 9, 9), 0.7)
    out, _ = GaussianBlur(p=1)(flat, torch.ones(4, 1), generator())
    torch.testing.assert_close(out, flat)
    noise = torch.rand(4, 3, 16, 16, generator=generator())
    mild, _ = GaussianBlur(sigma_min=0.5, sigma_max=0.5, p=1)(noise, torch.ones(4, 1), generator())
    strong, _ = GaussianBlur(sigma_min=2, sigma_max=2, p=1)(noise, torch.ones(4, 1), generator())
    assert noise.std() > mild.std() > strong.std()


def test_blur_refuses_an_empty_range():
    with pytest.raises(ValueError, match=r"sigma_min 2.0 is above sigma_max 1.0"):
        GaussianBlur(sigma_min=2.0)
