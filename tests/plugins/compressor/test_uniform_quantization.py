from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cnnbench_plugins.compressor._fake_layers import (
    SignInput,
    SignWeight,
    TernaryWeight,
    UniformInput,
    UniformWeight,
    straight_through,
)
from cnnbench_plugins.compressor._uniform import best_range, levels, quantized, range_to_scale


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_scales_are_those_of_torchao(bits, symmetric):
    quant_primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    rows = drawn(6, 50) + torch.linspace(-3, 3, 6)[:, None]
    lowest, highest = levels(bits, symmetric=symmetric)
    kind = quant_primitives.MappingType.SYMMETRIC if symmetric else quant_primitives.MappingType.ASYMMETRIC
    scale, zero_point = quant_primitives.choose_qparams_affine(rows, kind, (1, 50), torch.int32, lowest, highest)
    ours = range_to_scale(rows.amin(1), rows.amax(1), bits, symmetric=symmetric)
    torch.testing.assert_close(ours[0], scale)
    torch.testing.assert_close(ours[1], zero_point.float())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_rounding_is_that_of_torch(bits, symmetric):
    weight = drawn(5, 4, 3, 3) + 0.5
    scale, zero_point = range_to_scale(
        weight.flatten(1).amin(1) * 0.8, weight.flatten(1).amax(1) * 0.8, bits, symmetric=symmetric
    )
    reference = torch.fake_quantize_per_channel_affine(
        weight, scale, zero_point.int(), 0, *levels(bits, symmetric=symmetric)
    )
    shape = (-1, 1, 1, 1)
    ours = quantized(weight, scale.view(shape), zero_point.view(shape), bits, symmetric=symmetric)
    torch.testing.assert_close(ours, reference)


def test_halves_round_to_the_even_integer():
    values = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    assert quantized(values, 1.0, 0.0, 4, symmetric=True).tolist() == [-2, -2, 0, 0, 2, 2]


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 30),
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
    size=st.floats(1e-30, 1e30),
    shift=st.sampled_from([-1.0, 0.0, 3.0]),
)
@example(rows=2, columns=3, bits=2, symmetric=False, size=0.0, shift=0.0)
def test_the_range_chosen_is_never_worse_than_the_whole_range(rows, columns, bits, symmetric, size, shift):
    values = (drawn(rows, columns, seed=columns) + shift) * size
    whole = range_to_scale(values.amin(1, keepdim=True), values.amax(1, keepdim=True), bits, symmetric=symmetric)
    best = best_range(values, bits, symmetric=symmetric)
    errors = [(quantized(values, *one, bits, symmetric=symmetric) - values).square().sum(1) for one in (best, whole)]
    assert (errors[0] <= errors[1]).all()
    assert (quantized(torch.zeros(rows, 1), *best, bits, symmetric=symmetric) == 0).all()
    for row in quantized(values, *best, bits, symmetric=symmetric):
        assert len(row.unique()) <= 2**bits


def test_few_levels_are_not_spent_on_the_largest_values():
    # The best 2-bit quantizer of a normal variable with levels -2 to 1 has a step near 1; max |x| / 1.5 is far above.
    values = drawn(1, 20000)
    (scale, _), whole = best_range(values, 2, symmetric=True), values.abs().max() / 1.5
    assert 0.8 < scale.item() < 1.3 < whole / 2
    errors = [(quantized(values, s, 0.0, 2, symmetric=True) - values).square().mean() for s in (scale, whole)]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("per_channel", [True, False])
def test_error_grows_as_bits_fall(symmetric, per_channel):
    weight = drawn(8, 4, 3, 3) * torch.linspace(0.1, 2, 8).view(-1, 1, 1, 1)
    errors = [
        (UniformWeight(bits, per_channel=per_channel, symmetric=symmetric)(weight) - weight).norm().item()
        for bits in range(8, 1, -1)
    ]
    assert all(a < b for a, b in itertools.pairwise(errors))
    assert errors[0] > 0


def test_inputs_keep_to_their_levels_and_range():
    quantizer = UniformInput(3)
    x = torch.relu(drawn(4, 5, 6))
    assert quantizer(x) is x  # nothing is known yet
    quantizer.choose(x.flatten())
    result = quantizer(x)
    assert 2 < len(result.unique()) <= 8
    assert result.min() == 0
    assert torch.equal(quantizer(result), result)
    assert quantizer(x.bfloat16()).dtype == torch.bfloat16


def test_straight_through_gives_the_value_exactly_and_the_gradient_whole():
    x = drawn(1000).requires_grad_()
    rounded = x.detach() / 3
    result = straight_through(rounded, x)
    assert torch.equal(result, rounded)
    result.backward(torch.arange(1000.0))
    assert torch.equal(x.grad, torch.arange(1000.0))


@pytest.mark.parametrize("make", [lambda: UniformWeight(2), SignWeight, TernaryWeight])
def test_every_weight_receives_the_gradient_of_what_stands_for_it(make):
    weight = (3 * drawn(4, 3, 3, 3)).requires_grad_()
    upstream = drawn(4, 3, 3, 3, seed=1)
    make()(weight).backward(upstream)
    torch.testing.assert_close(weight.grad, upstream)


def test_clipped_inputs_receive_no_gradient():
    quantizer = UniformInput(4)
    quantizer.scale, quantizer.zero_point = 0.1, 5  # from -0.5 to 1.0
    x = torch.tensor([-0.6, -0.4, 0.0, 0.9, 1.1], requires_grad=True)
    quantizer(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_signs_of_normalized_inputs():
    x = drawn(16, 3, 5, 5) * 4 + 20  # one sign only, as behind a ReLU
    layer = SignInput(3, last=False).train()
    layer(x)
    layer.norm.momentum = 1.0
    signs = layer(x)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(signs > 0, x >= x.mean((0, 2, 3), keepdim=True))
    layer.eval().simulated = False
    torch.testing.assert_close(layer(x).mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    tokens = drawn(2, 4, 4, 6)
    assert SignInput(6, last=True)(tokens).shape == tokens.shape
    # The norm divides by about 4: its gradient passes where its output is between -1 and 1.
    flat = torch.tensor([[-3.0], [-0.5], [0.5], [3.0]], requires_grad=True)
    SignInput(1, last=True).eval()(flat).sum().backward()
    assert (flat.grad.flatten() > 0).tolist() == [False, True, True, False]
