"""Activations against their formulas in numpy's float64."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from torch import nn

from cnnbench.errors import Unsupported
from cnnbench.surgery import apply_surgery, materialize
from cnnbench_plugins.activation import rectified, smooth
from cnnbench_plugins.activation.rectified import Elu, LeakyRelu, Prelu, Relu, Selu
from cnnbench_plugins.activation.smooth import Gelu, HardSwish, Mish, Sigmoid, Silu, Softplus, Tanh

CASES = [
    (Relu(), lambda x: np.maximum(0, x)),
    (LeakyRelu(), lambda x: np.where(x > 0, x, 0.01 * x)),
    (LeakyRelu(slope=0.2), lambda x: np.where(x > 0, x, 0.2 * x)),
    (Prelu(), lambda x: np.where(x > 0, x, 0.25 * x)),
    (Elu(), lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
    (Elu(alpha=0.5), lambda x: np.where(x > 0, x, 0.5 * np.expm1(np.minimum(x, 0)))),
    (Selu(), lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))),
    (Sigmoid(), special.expit),
    (Tanh(), np.tanh),
    (Silu(), lambda x: x * special.expit(x)),
    (Gelu(), lambda x: x * special.ndtr(x)),
    (Mish(), lambda x: x * np.tanh(np.logaddexp(0, x))),
    (HardSwish(), lambda x: x * np.clip(x + 3, 0, 6) / 6),
    (Softplus(), lambda x: np.logaddexp(0, x)),
]


def replaced(technique, old=None):
    model = nn.Sequential(old or nn.ReLU(inplace=True), nn.Linear(1, 1, dtype=torch.float64))
    apply_surgery("activation", technique, model)
    return model[0]


def test_every_technique_has_its_formula():
    assert {type(technique) for technique, _ in CASES} == {*rectified.TECHNIQUES, *smooth.TECHNIQUES}


@pytest.mark.parametrize(("technique", "formula"), CASES, ids=lambda case: str(case) if not callable(case) else "")
@given(st.lists(st.floats(-30, 30), min_size=1, max_size=20))
@settings(deadline=None, max_examples=25)
def test_formula(technique, formula, values):
    x = torch.tensor(values, dtype=torch.float64)
    before = x.clone()
    # torch's softplus is the identity above 20, off by at most exp(-20) = 2e-9.
    np.testing.assert_allclose(replaced(technique)(x).detach().numpy(), formula(np.array(values)), rtol=1e-9, atol=3e-9)
    assert torch.equal(x, before), "works in place"


@pytest.mark.parametrize(("technique", "formula"), CASES, ids=lambda case: str(case) if not callable(case) else "")
def test_gradient(technique, formula):
    x = torch.linspace(-2.9, 2.9, 30, dtype=torch.float64, requires_grad=True)  # clear of the kinks at 0 and +-3
    replaced(technique)(x).sum().backward()
    step = 1e-6
    points = x.detach().numpy()
    slope = (formula(points + step) - formula(points - step)) / (2 * step)
    np.testing.assert_allclose(x.grad.numpy(), slope, rtol=1e-5, atol=1e-7)


def test_prelu_learns_one_slope_a_module():
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 1), nn.ReLU())
    before = sum(p.numel() for p in model.parameters())
    apply_surgery("activation", Prelu(), model)
    assert sum(p.numel() for p in model.parameters()) == before + 2
    model(-torch.ones(1, 3, 2, 2)).sum().backward()
    assert model[0].weight.grad is not None


def test_prelu_learns_one_slope_a_channel():
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5), nn.ReLU())
    before = sum(p.numel() for p in model.parameters())
    apply_surgery("activation", Prelu(parameters="channel"), model)
    materialize(model, (3, 2, 2))
    assert [type(model[i]) for i in (0, 2, 5)] == [nn.PReLU] * 3
    assert [model[i].num_parameters for i in (0, 2, 5)] == [3, 4, 5]
    assert sum(p.numel() for p in model.parameters()) == before + 3 + 4 + 5
    assert model[2].weight.tolist() == [0.25] * 4
    slopes = torch.tensor([0.1, 0.2, 0.3])
    model[0].weight.data.copy_(slopes)
    x = torch.randn(2, 3, 2, 2)
    torch.testing.assert_close(model[0](x), torch.where(x > 0, x, slopes[:, None, None] * x))
    copy.deepcopy(model)(x).sum().backward()


def test_prelu_for_each_channel_where_places_differ():
    """A module called with 2 channels and with 4 has no number of slopes that suits both."""
    relu = nn.ReLU()
    model = nn.Sequential(nn.Conv2d(1, 2, 1), relu, nn.Conv2d(2, 4, 1), relu)
    apply_surgery("activation", Prelu(parameters="channel"), model)
    with pytest.raises(Unsupported, match="does not run on 1x3x3 images after the surgery"):
        materialize(model, (1, 3, 3))
