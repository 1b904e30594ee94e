"""Penalties on filters against loops over the definition, and the elastic net against scikit-learn's optimum."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import linear_model
from torch import nn

from cnnbench.errors import NoEffect
from cnnbench_plugins.regularizer.penalties import ElasticNet
from cnnbench_plugins.regularizer.structured import GroupLasso, OrthogonalPenalty
from cnnbench_plugins.regularizer.updates import noise_std

LOGITS = torch.zeros(1, 2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_elastic_nets_gradient_vanishes_at_scikit_learns_optimum():
    x = np.random.default_rng(0).normal(size=(80, 6))
    y = x @ np.array([2.0, -1.0, 0.0, 0.5, 0.0, 0.0]) + np.random.default_rng(1).normal(size=80)
    alpha, ratio = 0.4, 0.7
    fitted = linear_model.ElasticNet(alpha=alpha, l1_ratio=ratio, fit_intercept=False, tol=1e-12).fit(x, y)
    layer = nn.Linear(6, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(fitted.coef_)[None])
    squares = 0.5 * (layer(torch.tensor(x)).squeeze(1) - torch.tensor(y)).square().mean()
    penalty = ElasticNet(l1=alpha * ratio, l2=alpha * (1 - ratio)).penalty(layer, LOGITS)
    (squares + penalty).backward()
    kept = layer.weight.detach() != 0
    assert 0 < kept.sum() < 6
    assert layer.weight.grad[kept].abs().max() < 1e-6
    assert layer.weight.grad[~kept].abs().max() <= alpha * ratio, "a subgradient of the magnitudes is 0 there"


def named(value):
    """Functions have no name that is the same in every process."""
    return str(value) if isinstance(value, nn.Module) else ""


def layers():
    """Layers, and for each the index of every filter's weights."""
    conv = nn.Conv2d(6, 4, 3, groups=2)
    transposed = nn.ConvTranspose2d(6, 4, 3, groups=2)
    return [
        (nn.Linear(5, 3), [lambda w, i=i: w[i] for i in range(3)]),
        (conv, [lambda w, i=i: w[i] for i in range(4)]),
        (transposed, [lambda w, g=g, i=i: w[3 * g : 3 * g + 3, i] for g in range(2) for i in range(2)]),
        (nn.Conv2d(5, 5, 3, groups=5), [lambda w, i=i: w[i] for i in range(5)]),
    ]


@pytest.mark.parametrize(("layer", "filters"), layers(), ids=named)
def test_group_lasso_sums_the_lengths_of_filters(layer, filters):
    weight = layer.weight.detach().double().numpy()
    expected = sum(math.sqrt(f(weight).size) * np.linalg.norm(f(weight)) for f in filters)
    penalty = GroupLasso(strength=0.3).penalty(nn.Sequential(layer, nn.BatchNorm2d(4)), LOGITS)
    assert penalty.item() == pytest.approx(0.3 * expected, rel=1e-5)
    penalty.backward()
    for filter_of in filters:
        pull = filter_of(layer.weight.grad)
        assert pull.square().mean().sqrt().item() == pytest.approx(0.3, rel=1e-4), "as strong as l1"
    assert layer.bias.grad is None


def test_group_lasso_lets_a_filter_of_zeros_be():
    layer = nn.Conv2d(2, 3, 3)
    with torch.no_grad():
        layer.weight[1] = 0
    GroupLasso(strength=1.0).penalty(layer, LOGITS).backward()
    assert layer.weight.grad[1].abs().max() == 0
    assert torch.isfinite(layer.weight.grad).all()


def test_group_lasso_empties_whole_filters_where_l1_would_not():
    # Proximal view: from one start, descent on the penalty alone shortens every filter and keeps its direction.
    layer = nn.Conv2d(3, 4, 3, bias=False)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        GroupLasso(strength=1.0).penalty(layer, LOGITS).backward()
        optimizer.step()
    cosine = nn.functional.cosine_similarity(layer.weight.flatten(1), before.flatten(1))
    torch.testing.assert_close(cosine, torch.ones(4))
    shrunk = before.flatten(1).norm(dim=1) - layer.weight.detach().flatten(1).norm(dim=1)
    torch.testing.assert_close(shrunk, torch.full((4,), 20e-3 * math.sqrt(27)), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("layer", "blocks"),
    [
        (nn.Linear(7, 4), lambda w: [w]),
        (nn.Linear(4, 7), lambda w: [w.T]),
        (nn.Conv2d(2, 4, 3), lambda w: [w.reshape(4, 18)]),
        (nn.Conv2d(1, 12, 3), lambda w: [w.reshape(12, 9).T]),
        (nn.Conv2d(4, 6, 3, groups=2), lambda w: [w[:3].reshape(3, 18), w[3:].reshape(3, 18)]),
        (nn.Conv2d(12, 12, 3, groups=12), lambda w: [f.reshape(1, 9) for f in w]),
        (nn.ConvTranspose2d(4, 3, 2), lambda w: [w.transpose(1, 0, 2, 3).reshape(3, 16)]),
    ],
    ids=named,
)
def test_orthogonal_penalty_is_the_squared_distance_from_orthonormal_filters(layer, blocks):
    weight = layer.weight.detach().double().numpy()
    expected = sum(np.linalg.norm(b @ b.T - np.eye(len(b)), "fro") ** 2 for b in blocks(weight))
    assert OrthogonalPenalty(strength=0.2).penalty(layer, LOGITS).item() == pytest.approx(0.2 * expected, rel=1e-5)


@settings(deadline=None, max_examples=25)
@given(rows=st.integers(1, 8), columns=st.integers(1, 8), scale=st.floats(0.5, 2))
def test_orthogonal_penalty_of_a_scaled_orthogonal_matrix(rows, columns, scale):
    layer = nn.Linear(columns, rows, bias=False).double()
    nn.init.orthogonal_(layer.weight, gain=scale, generator=generator())
    penalty = OrthogonalPenalty(strength=1.0).penalty(layer, LOGITS)
    # All min(rows, columns) singular values are ``scale``: a tall matrix is not charged for rows it can't have.
    assert penalty.item() == pytest.approx(min(rows, columns) * (scale**2 - 1) ** 2, abs=1e-9)


def test_descent_on_the_orthogonal_penalty_ends_at_orthonormal_filters():
    layer = nn.Conv2d(2, 5, 3, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        OrthogonalPenalty(strength=1.0).penalty(layer, LOGITS).backward()
        optimizer.step()
    matrix = layer.weight.detach().flatten(1)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(5), atol=1e-4, rtol=0)


@pytest.mark.parametrize("technique", [ElasticNet(), GroupLasso(), OrthogonalPenalty()], ids=str)
def test_frozen_and_shared_weights(technique):
    tied, frozen = nn.Linear(6, 3), nn.Linear(3, 3)
    other = nn.Linear(6, 3)
    other.weight = tied.weight
    frozen.weight.requires_grad_(False)
    alone = technique.penalty(tied, LOGITS)
    torch.testing.assert_close(technique.penalty(nn.ModuleList([tied, other, frozen]), LOGITS), alone)
    with pytest.raises(NoEffect, match="no trainable weight"):
        technique.penalty(nn.Sequential(frozen, nn.BatchNorm1d(3)), LOGITS)


def test_noise_std_is_the_root_of_the_papers_variance():
    assert noise_std(0, 0.3, 0.55) ** 2 == pytest.approx(0.3)
    assert noise_std(99, 1.0, 0.55) ** 2 == pytest.approx(100**-0.55)
    assert noise_std(7, 0.01, 0.0) == pytest.approx(0.1)
