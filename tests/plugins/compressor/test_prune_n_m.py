from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cnnbench.errors import NoEffect
from cnnbench.stages.profile import profile
from cnnbench_plugins.compressor.low_rank import Svd
from cnnbench_plugins.compressor.prune_n_m import PruneNM, n_of_m
from cnnbench_plugins.compressor.prune_weights import PruneMagnitude


@settings(deadline=None, max_examples=50)
@given(
    out=st.integers(1, 4),
    blocks=st.integers(1, 3),
    kernel=st.sampled_from([(), (1, 1), (3, 2)]),
    m=st.integers(2, 6),
    data=st.data(),
)
def test_every_block_along_the_inputs_keeps_its_n_largest(out, blocks, kernel, m, data):
    n = data.draw(st.integers(1, m - 1))
    weight = torch.randn(out, blocks * m, *kernel, generator=torch.Generator().manual_seed(out * 7 + m))
    mask = n_of_m(weight, n, m).numpy()
    values = np.abs(weight.numpy())
    for o in range(out):
        for place in np.ndindex(kernel):
            for block in range(blocks):
                kept = [mask[(o, i, *place)] for i in range(block * m, block * m + m)]
                size = [values[(o, i, *place)] for i in range(block * m, block * m + m)]
                assert sum(kept) == n
                assert {i for i in range(m) if kept[i]} == set(np.argsort(size)[m - n :])


def test_equal_weights_still_keep_n():
    assert n_of_m(torch.ones(2, 8), 2, 4).sum(1).tolist() == [4, 4]
    assert n_of_m(torch.zeros(2, 8), 1, 4).sum(1).tolist() == [2, 2]


def test_two_of_four_survives_fine_tuning_and_leaves_what_four_does_not_divide(model, context):
    first = model[0]
    assert first.in_channels == 1
    pruned = PruneNM(epochs=1)(model, context)
    for layer in pruned.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer is not first:
            blocks = layer.weight.detach().movedim(1, -1).unflatten(-1, (-1, 4))
            assert int((blocks != 0).sum(-1).max()) == 2
            assert int((layer.weight == 0).sum()) == layer.weight.numel() // 2
    assert int((first.weight == 0).sum()) == 0
    assert context.trained_epochs == [1]


def test_size_is_nominal_values_and_two_bits_a_position(model, context):
    dense = profile(model, context.example).metrics
    pruned = PruneNM(epochs=0)(model, context)
    found = profile(pruned, context.example)
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)) - 16 * 9
    assert found.methods["size_bytes"] == "nominal"
    assert dense["size_bytes"] - found.metrics["size_bytes"] == 4 * weights - (weights // 2 * 4 + weights // 2 * 2 / 8)
    assert found.metrics["flops"] == dense["flops"]
    assert found.metrics["params"] == dense["params"]
    assert found.metrics["params_nonzero"] == dense["params_nonzero"] - weights // 2


def test_what_has_no_pattern_to_take_is_an_error(model, context):
    with pytest.raises(NoEffect, match=r"5 divides no layer's number of inputs \(0 of 2 layers"):
        PruneNM(n=2, m=5, epochs=0)(nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.Linear(8, 2)), context)
    once = PruneNM(epochs=0)(model, context)
    with pytest.raises(NoEffect, match=r"of the pattern before \(6 of 7 layers"):
        PruneNM(epochs=0)(once, context)
    with pytest.raises(ValueError, match="n below m, found n = 4, m = 4"):
        PruneNM(n=4)


def test_a_later_change_of_the_weights_ends_the_claim(model, context):
    pruned = PruneNM(epochs=0)(model, context)
    assert isinstance(PruneNM(n=1, epochs=0)(copy.deepcopy(pruned), context).deployed_bytes, int)
    assert Svd(share=0.25, of="rank", epochs=0)(copy.deepcopy(pruned), context).deployed_bytes is None
    assert PruneMagnitude(sparsity=0.9, epochs=0)(pruned, context).deployed_bytes is None
