from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from cnnbench.artifact import load_model, save_model
from cnnbench.stages.profile import profile, saved_bytes
from cnnbench_plugins.compressor._fake_layers import QuantizedLayer
from cnnbench_plugins.compressor._simulated import Simulated, packed_bytes
from cnnbench_plugins.compressor.binarize import Binary, Ternary
from cnnbench_plugins.compressor.fold_bn import FoldBn
from cnnbench_plugins.compressor.prune_weights import PruneMagnitude
from cnnbench_plugins.compressor.quantize_ptq import QuantizePtq
from cnnbench_plugins.compressor.quantize_weights import QuantizeWeights
from cnnbench_plugins.compressor.weight_sharing import WeightSharing

TECHNIQUES = [
    QuantizeWeights(bits=4),
    QuantizePtq(bits=4),
    Binary(epochs=1, activations=True),
    Ternary(epochs=0),
    WeightSharing(epochs=0),
]


def layers(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def dense_codes(weights, bits):
    return sum(math.ceil(w.numel() * bits / 8) for w in weights)


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_codes_are_packed_without_gaps(bits):
    assert packed_bytes(torch.ones(3, 5, 1, 1), bits) == math.ceil(15 * bits / 8)


def test_sparse_codes_are_those_of_deep_compression_written_out():
    def by_hand(weight, bits, reach):
        entries, gap = 0, 0
        for value in weight.flatten().tolist():
            gap += 1
            if value or gap == 2**reach:  # a filler, where the distance would not fit
                entries, gap = entries + 1, 0
        return math.ceil(entries * (bits + reach) / 8), gap

    generator = torch.Generator().manual_seed(0)
    for shape, reach in (((20, 30, 3, 3), 8), ((90, 60), 5)):
        for share in (0.02, 0.002):
            weight = torch.randn(shape, generator=generator)
            weight[torch.rand(shape, generator=generator) > share] = 0
            expected, tail = by_hand(weight, 4, reach)
            # By hand a filler is written also behind the last weight, where none is needed.
            surplus = tail // 2**reach + 1
            assert expected - math.ceil(surplus * (4 + reach) / 8) - 2 <= packed_bytes(weight, 4) <= expected


def test_sizes_multiply():
    # A tenth of the weights at 5 of 32 bits: 64 times less, but for the places, 8 bits each.
    weight = torch.zeros(1000, 10, 3, 3)
    weight.view(-1)[::10] = 1.0
    assert packed_bytes(weight, 32) == pytest.approx(weight.numel() * 4 / 10 * (40 / 32), rel=1e-3)
    assert packed_bytes(weight, 5) == pytest.approx(weight.numel() * 4 / 10 * (13 / 32), rel=1e-3)
    assert packed_bytes(torch.ones_like(weight), 5) == pytest.approx(weight.numel() * 4 * 5 / 32)


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda t: type(t).__name__)
def test_size_is_the_saved_file_with_codes_in_place_of_weights(model, context, technique):
    made = technique(model, context)
    found, size = layers(made.network), saved_bytes(made.network)
    edges = {next(iter(found)), list(found)[-1]}
    inner = [m.weight for name, m in found.items() if name not in edges]
    every = [m.weight for m in found.values()]
    filters = sum(len(w) for w in inner)
    match technique:
        case QuantizeWeights():
            expected = size - 4 * sum(map(torch.numel, every)) + dense_codes(every, 4) + 4 * sum(map(len, every))
        case QuantizePtq():  # the first and last layer have 8 bits; each layer's input a scale and a zero point
            outer = [found[name].weight for name in edges]
            expected = size - 4 * sum(map(torch.numel, every)) + dense_codes(inner, 4) + dense_codes(outer, 8)
            expected += 4 * sum(map(len, every)) + 5 * len(every)
        case Binary():
            expected = size - 4 * sum(map(torch.numel, inner)) + dense_codes(inner, 1) + 4 * filters
        case Ternary():
            expected = size - 4 * sum(map(torch.numel, inner)) + dense_codes(inner, 2) + 4 * filters
        case WeightSharing():  # indices and a codebook for each layer
            expected = size - 4 * sum(map(torch.numel, every)) + dense_codes(every, 5) + 4 * 32 * len(every)
    assert made.deployed_bytes == expected


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda t: type(t).__name__)
def test_the_profile_marks_it_nominal_and_no_speed_is_claimed(model, context, technique, tmp_path):
    before = profile(model, context.example)
    made = technique(copy.deepcopy(model), context)
    save_model(tmp_path / "model.pt", made, nn.Identity())
    made = load_model(tmp_path / "model.pt").model
    found = profile(made, context.example)
    assert found.methods == {"size_bytes": "nominal"}
    assert found.metrics["size_bytes"] == made.deployed_bytes < before.metrics["size_bytes"]
    assert found.metrics["flops"] == before.metrics["flops"]
    served = made.deploy(context.example)
    assert made.kernels == "floating-point"
    assert made.kernels_reason.endswith("simulated here: no speed is claimed")
    # What is timed are the modules of the network that was there before, apart from norms that a format needs.
    rounding = [m for m in served.modules() if isinstance(m, Simulated | QuantizedLayer)]
    if not isinstance(technique, Binary):
        assert rounding == []
        assert [type(m) for m in served.modules()] == [type(m) for m in model.modules()]
    assert served(context.test_images[:3]).shape == (3, 10)
    torch.testing.assert_close(made(context.test_images), copy.deepcopy(made)(context.test_images))
    for batch in (context.test_images[:1], context.test_images[:2].to(memory_format=torch.channels_last)):
        with torch.autocast("cpu", torch.bfloat16):
            assert made(batch).isfinite().all()


def test_a_later_compressor_ends_the_claim(model, context):
    rounded = QuantizeWeights(bits=4)(model, context)
    assert isinstance(rounded.deployed_bytes, int)
    fewer = PruneMagnitude(sparsity=0.5, epochs=0)(copy.deepcopy(rounded), context)
    assert fewer.deployed_bytes is None
    assert "size_bytes" not in profile(fewer, context.example).methods
    assert FoldBn()(copy.deepcopy(rounded), context).deployed_bytes is None
    del fewer.network[7]
    assert fewer.deployed_bytes is None


def test_another_format_takes_the_place_of_the_first(model, context):
    sizes = []
    for bits in (8, 4, 2):
        model = QuantizeWeights(bits=bits)(model, context)
        assert isinstance(model, Simulated)
        assert not isinstance(model.network, Simulated)
        sizes.append(model.deployed_bytes)
    weights = sum(m.weight.numel() for m in layers(model).values())
    assert [a - b for a, b in itertools.pairwise(sizes)] == [weights // 2, weights // 4]


def test_a_weight_that_layers_share_is_stored_once(context):
    first, second = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
    second.weight = first.weight
    made = QuantizeWeights(bits=8)(nn.Sequential(nn.Flatten(), first, second), context)
    assert made.deployed_bytes == saved_bytes(made.network) - 64 * 64 * 3 + 4 * 64
