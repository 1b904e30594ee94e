"""ZCA whitening against scikit-learn and closed forms."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from cnnbench.artifact import load_model, save_model
from cnnbench.errors import Unsupported
from cnnbench_plugins.input.whitening import MOST_VALUES, ZCA, pixel_moments, zca_matrix

SHAPE = (3, 4, 5)
TINY = 1e-9


def make(n: int = 300, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> torch.Tensor:
    """Correlated images, as photographs are: neighbouring pixels share most of their value."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 1, 1, 1, generator=generator)
    return (160 * coarse + 90 * torch.rand(n, *shape, generator=generator)).to(torch.uint8)


def unit(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 255


def columns(images: torch.Tensor) -> np.ndarray:
    return images.flatten(1).double().numpy()


def test_it_equals_scikit_learns_whitened_pca_turned_back():
    train, test = make(), make(50, seed=1)
    pca = PCA(whiten=True).fit(columns(train) / 255)
    scale = np.sqrt(len(train) / (len(train) - 1))  # scikit-learn divides by n - 1
    module = ZCA(eps=TINY)(train)
    for images in (train, test):
        expected = pca.transform(columns(images) / 255) @ pca.components_ * scale
        np.testing.assert_allclose(columns(module(unit(images))), expected, atol=2e-4)


@pytest.mark.parametrize("n", [300, 1500])
def test_the_training_splits_covariance_becomes_the_identity(n):
    train = make(n)
    out = columns(ZCA(eps=TINY)(train)(unit(train)))
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(out.T, bias=True), np.eye(out.shape[1]), atol=1e-3)


@pytest.mark.parametrize("eps", [1e-3, 0.01, 0.5])
def test_eps_shrinks_each_direction_by_its_own_share(eps):
    train = make()
    _, covariance = pixel_moments(train)
    out = columns(ZCA(eps=eps)(train)(unit(train)))
    variances = np.linalg.eigvalsh(covariance.numpy())
    shrunk = np.linalg.eigvalsh(np.cov(out.T, bias=True))
    np.testing.assert_allclose(np.sort(shrunk), np.sort(variances / (variances + eps)), atol=1e-4)


def test_the_matrix_is_the_inverse_root_of_two_values_covariance():
    # Variances 4 and 1 along the diagonals of the plane.
    covariance = torch.tensor([[2.5, 1.5], [1.5, 2.5]], dtype=torch.float64)
    expected = torch.tensor([[0.75, -0.25], [-0.25, 0.75]], dtype=torch.float64)
    torch.testing.assert_close(zca_matrix(covariance, 1e-12), expected)


def test_whitened_images_stay_the_nearest_to_the_centred_ones():
    # What sets ZCA apart from other whitenings is that W is symmetric and positive.
    matrix = ZCA()(make()).matrix
    torch.testing.assert_close(matrix, matrix.T)
    assert (torch.linalg.eigvalsh(matrix) > 0).all()


def test_moments_equal_numpys():
    train = make(2500, (1, 3, 3))
    mean, covariance = pixel_moments(train)
    values = columns(train) / 255
    np.testing.assert_allclose(mean, values.mean(0), atol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(values.T, bias=True), atol=1e-12)


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_constant_pixel_does_not_divide_by_zero(value):
    train = make()
    train[:, 1, 2, 3] = value
    out = ZCA()(train)(unit(train))
    assert out.isfinite().all()
    torch.testing.assert_close(out[:, 1, 2, 3], torch.zeros(len(train)), atol=1e-5, rtol=0)


def test_fewer_images_than_values_and_a_single_image_stay_finite():
    for n in (1, 10):
        train = make(n)
        assert ZCA()(train)(unit(make(20, seed=3))).isfinite().all()


def test_large_images_are_refused_in_one_line():
    assert MOST_VALUES >= 32 * 32 * 3
    with pytest.raises(Unsupported, match=r"^zca takes .* not 3 x 64 x 64 = 12288: use smaller images, or z_score$"):
        ZCA()(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))


def test_images_of_another_size_are_refused():
    with pytest.raises(Unsupported, match=r"images of 3 x 4 x 5, not 3 x 8 x 8"):
        ZCA()(make())(torch.rand(2, 3, 8, 8))


def test_autocast_and_channels_last_change_nothing():
    train = make()
    module = ZCA()(train)
    images = unit(train[:7])
    expected = module(images)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(images)
    assert out.dtype == torch.float32
    assert torch.equal(out, expected)
    torch.testing.assert_close(module(images.contiguous(memory_format=torch.channels_last)), expected)
    torch.testing.assert_close(module(images[:1]), expected[:1], atol=1e-5, rtol=1e-5)


def test_it_is_fitted_once_and_travels(tmp_path):
    train = make()
    kept = train.clone()
    module = ZCA()(train)
    assert torch.equal(train, kept)
    assert not list(module.parameters())
    images = torch.rand(2, *SHAPE)
    expected = module(images)
    assert torch.equal(pickle.loads(pickle.dumps(module))(images), expected)
    assert torch.equal(copy.deepcopy(module)(images), expected)
    save_model(tmp_path / "model.pt", torch.nn.Linear(1, 1), torch.nn.Sequential(module))
    assert torch.equal(load_model(tmp_path / "model.pt").input(images), expected)


@pytest.mark.gpu
def test_on_the_gpu():
    train = make()
    images = unit(train[:5])
    out = ZCA()(train.cuda())(images.cuda())
    assert out.is_cuda
    torch.testing.assert_close(out.cpu(), ZCA()(train)(images), atol=1e-4, rtol=1e-4)
