from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from cnnbench.errors import NoEffect
from cnnbench_plugins.compressor._fake_layers import QuantizedLayer, SignWeight, TernaryWeight
from cnnbench_plugins.compressor.binarize import Binary, Ternary


def layers(model):
    return [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def test_binary_weights_are_the_best_multiple_of_signs():
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    made = SignWeight()(weight)
    for filter_, result in zip(weight, made, strict=True):
        assert torch.equal(result.sign(), filter_.sign())
        scale = result.abs().max()
        assert result.abs().min() == scale
        torch.testing.assert_close(scale, filter_.abs().mean())
        errors = [(filter_ - scale * share * filter_.sign()).norm() for share in (0.9, 0.99, 1, 1.01, 1.1)]
        assert min(errors) == errors[2]
    assert SignWeight()(torch.zeros(1, 4)).tolist() == [[0, 0, 0, 0]]
    assert SignWeight()(torch.tensor([[0.0, -2.0]])).tolist() == [[1, -1]]


def test_ternary_weights_of_a_worked_example():
    # mean |w| = 0.5, so the threshold is 0.35; above it are 0.9, -0.7, -0.5, of mean 0.7.
    weight = torch.tensor([[0.9, -0.7, 0.3, -0.5, 0.1], [0.0, 0.0, 0.0, 0.0, 0.0]])
    expected = torch.tensor([[0.7, -0.7, 0.0, -0.7, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(TernaryWeight()(weight), expected)


def test_the_ternary_threshold_is_near_the_best_of_gaussian_weights():
    weight = torch.randn(1, 20000, generator=torch.Generator().manual_seed(0))
    chosen = (TernaryWeight()(weight) - weight).square().sum()

    def at(share):
        above = weight.abs() > share * weight.abs().mean()
        return (weight - weight.sign() * above * weight.abs()[above].mean()).square().sum()

    assert chosen <= 1.01 * min(at(share / 100) for share in range(5, 200, 5))
    # Li et al. 2016, section 2.2: 0.75 mean |w| is best for normal weights, 2/3 for uniform ones.
    torch.testing.assert_close(chosen, at(0.7))


@pytest.mark.parametrize("technique", [Binary(epochs=2), Binary(epochs=2, activations=True), Ternary(epochs=2)])
def test_filters_keep_their_few_values_through_fine_tuning(model, context, technique):
    untrained = type(technique)(epochs=0)(copy.deepcopy(model), context)
    made = technique(copy.deepcopy(model), context)
    binary = isinstance(technique, Binary)
    inner = layers(made)[1:-1]
    assert len(inner) == 5
    for layer in inner:
        for row in layer.weight:
            values = row.unique()
            assert len(values) == (2 if binary else 3)
            assert values[0] == -values[-1]
            assert binary or values[1] == 0
    edges = [(layers(made)[i].weight, layers(model)[i].weight) for i in (0, -1)]
    assert all(len(a.unique()) > 3 and not torch.equal(a, b) for a, b in edges)
    signs = [torch.cat([layer.weight.sign().flatten() for layer in layers(m)[1:-1]]) for m in (untrained, made)]
    assert (signs[0] != signs[1]).float().mean() > 0.01  # it has learned
    assert context.validation_accuracy(made) > context.validation_accuracy(untrained) + 0.3
    assert context.trained_epochs == [2]


def test_binary_activations_are_signs(model, context):
    made = Binary(epochs=1, activations=True)(model, context)
    quantized = [m for m in made.modules() if isinstance(m, QuantizedLayer)]
    assert len(quantized) == 5
    seen = []
    for layer in quantized:
        layer.layer.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    made(context.test_images)
    # Both signs occur, and neither seldom: without a norm all would be +1 behind a ReLU.
    assert all(set(x.unique().tolist()) == {-1.0, 1.0} for x in seen)
    assert all(0.05 < (x > 0).float().mean() < 0.95 for x in seen)
    served = made.deploy(context.example)
    norms = [m for m in served.modules() if isinstance(m, nn.BatchNorm1d)]
    assert [norm.num_features for norm in norms] == [m.layer.in_channels for m in quantized]


@pytest.mark.parametrize("cls", [Binary, Ternary])
def test_all_layers_can_be_meant(context, cls):
    two = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10))
    with pytest.raises(NoEffect, match="nothing: all 2 layers are first or last; set keep_edges = false"):
        cls(epochs=0)(copy.deepcopy(two), context)
    made = cls(epochs=0, keep_edges=False)(two, context)
    assert all(len(row.unique()) <= 3 for layer in layers(made) for row in layer.weight)
    with pytest.raises(NoEffect, match="no convolution or linear layer"):
        cls()(nn.Sequential(nn.Flatten()), context)


def test_binary_activations_need_epochs():
    with pytest.raises(ValueError, match="expected epochs of 1 or more, found 0"):
        Binary(activations=True, epochs=0)


def test_linear_layers_over_the_last_axis(context):
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.inner, self.last = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 10)

        def forward(self, x):  # [N, 1, 8, 8]
            return self.last(torch.relu(self.inner(torch.relu(self.first(x)))).mean((1, 2)))

    made = Binary(epochs=1, activations=True)(Tokens(), context)
    assert made(context.test_images[:3]).shape == (3, 10)
