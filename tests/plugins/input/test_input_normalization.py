"""Input normalization against scikit-learn and NumPy."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from cnnbench_plugins.input.scaling import MinMax, Raw, Unit
from cnnbench_plugins.input.standardization import PerImage, ZScore, channel_moments


def make(n: int = 40, channels: int = 3, size: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 200, (n, channels, size, size + 1), generator=generator, dtype=torch.uint8)
    return images + 10 * torch.arange(channels, dtype=torch.uint8).view(1, -1, 1, 1)


def unit(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 255


def by_channel(scaler, fit: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    columns = [unit(t).double().movedim(1, -1).reshape(-1, t.shape[1]).numpy() for t in (fit, images)]
    scaled = torch.from_numpy(scaler.fit(columns[0]).transform(columns[1]))
    n, c, h, w = images.shape
    return scaled.reshape(n, h, w, c).movedim(-1, 1).float()


@pytest.mark.parametrize("channels", [1, 3])
def test_z_score_equals_scikit_learns(channels):
    train, test = make(channels=channels), make(channels=channels, seed=1)
    module = ZScore()(train)
    for images in (train, test):
        expected = by_channel(StandardScaler(), train, images)
        torch.testing.assert_close(module(unit(images)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (2.0, 5.0)])
def test_min_max_equals_scikit_learns(channels, low, high):
    train, test = make(channels=channels), make(channels=channels, seed=1)
    train = train.clamp(30, 180)
    module = MinMax(low=low, high=high)(train)
    for images in (train, test):
        expected = by_channel(MinMaxScaler((low, high)), train, images)
        torch.testing.assert_close(module(unit(images)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_constant_channel_does_not_divide_by_zero(value):
    train = make()
    train[:, 1] = value
    for technique, scaler in ((ZScore(), StandardScaler()), (MinMax(), MinMaxScaler((-1, 1)))):
        out = technique(train)(unit(train))
        assert out.isfinite().all()
        torch.testing.assert_close(out, by_channel(scaler, train, train), atol=1e-5, rtol=1e-5)


def test_nothing_but_the_images_given_is_fitted():
    train = make(20)
    module = ZScore()(train)
    before = module.scale.clone()
    module(torch.rand(5, 3, 6, 7))
    assert torch.equal(module.scale, before)
    assert not list(module.parameters())


def test_per_image_equals_numpy():
    images = make()
    images[3] = 90
    out = PerImage()(images)(unit(images)).numpy()
    values = unit(images).numpy().astype(np.float64)
    mean = values.mean((1, 2, 3), keepdims=True)
    std = values.std((1, 2, 3), keepdims=True)
    flat = std[:, 0, 0, 0] < 1e-6
    assert flat.tolist() == [i == 3 for i in range(len(images))]
    np.testing.assert_allclose(out[~flat], ((values - mean) / std.clip(1e-6))[~flat], atol=1e-5)
    np.testing.assert_allclose(out[flat], 0, atol=1e-3)


def test_per_image_ignores_brightness_and_contrast_of_one_image():
    image = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    module = PerImage()(make())
    torch.testing.assert_close(module(0.3 + 0.2 * image), module(image), atol=1e-4, rtol=1e-4)


def test_unit_and_none_have_their_scales():
    images = make()
    assert torch.equal(Unit()(images)(unit(images)), unit(images))
    torch.testing.assert_close(Raw()(images)(unit(images)), images.float(), atol=1e-4, rtol=0)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_moments_are_exact(data):
    shape = tuple(data.draw(st.integers(1, 5)) for _ in range(4))
    values = data.draw(st.lists(st.integers(0, 255), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    images = torch.tensor(values, dtype=torch.uint8).view(shape)
    mean, std = channel_moments(images)
    reference = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean, reference.mean((0, 2, 3)), atol=1e-12)
    np.testing.assert_allclose(std, reference.std((0, 2, 3)), atol=1e-7)


def test_min_max_refuses_an_empty_range():
    with pytest.raises(ValueError, match="low must be below high"):
        MinMax(low=1.0, high=1.0)


@pytest.mark.parametrize("technique", [Raw(), Unit(), MinMax(), ZScore(), PerImage()])
def test_modules_pickle_and_take_any_batch(technique):
    train = make()
    kept = train.clone()
    module = technique(train)
    again = pickle.loads(pickle.dumps(module))
    images = torch.rand(1, 3, 6, 7)
    assert torch.equal(again(images), module(images))
    assert module(images).dtype == torch.float32
    assert torch.equal(train, kept)
