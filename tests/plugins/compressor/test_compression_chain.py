"""Compressors one after the other: what each does to the parameters and to the size that is reported."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cnnbench.stages.profile import profile, saved_bytes
from cnnbench_plugins.compressor.cp import Cp
from cnnbench_plugins.compressor.low_rank import Svd
from cnnbench_plugins.compressor.prune_filters import PruneFilters
from cnnbench_plugins.compressor.prune_weights import PruneMagnitude
from cnnbench_plugins.compressor.quantize_weights import QuantizeWeights
from cnnbench_plugins.compressor.tucker2 import Tucker2

pytest.importorskip("torch_pruning")


def wide(channels=64):
    """Convolution, batch norm and two linear layers, wide enough for weights to outweigh all else."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * channels, 512, bias=False),
        nn.ReLU(),
        nn.Linear(512, 10, bias=False),
    )


def matrices(model):
    return [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def apply(chain, model, context):
    for technique in chain:
        model = technique(model, context)
    return model.eval()


def test_filters_then_ranks_then_bits_multiply(context):
    model = wide()
    halved = apply([PruneFilters(ratio=0.5, epochs=0)], model, context)
    assert sum(w.numel() for w in matrices(halved)) == 32 * 9 + 128 * 256 + 256 * 10
    ranked = apply([Svd(share=0.25, of="rank", epochs=0)], halved, context)
    # Rank 32 of 128 for the wide layer, 2 (of 10, rounded) for the classifier.
    weights = 32 * 9 + 32 * (128 + 256) + 2 * (256 + 10)
    assert sum(w.numel() for w in matrices(ranked)) == weights
    plain = saved_bytes(ranked)
    rounded = apply([QuantizeWeights(bits=8)], ranked, context)
    scales = sum(len(w) for w in matrices(rounded))
    found = profile(rounded, context.example)
    assert found.methods["size_bytes"] == "nominal"
    assert found.metrics["size_bytes"] == plain - 4 * weights + weights + 4 * scales
    assert found.metrics["params"] == weights + 2 * 32
    assert rounded(context.calibration(3)).shape == (3, 10)


@pytest.mark.parametrize("factorization", [Tucker2(share=0.6, of="rank", epochs=0), Cp(epochs=0)])
def test_factors_can_be_pruned_and_quantized(model, context, factorization):
    made = apply(
        [PruneFilters(ratio=0.25, epochs=0), factorization, PruneMagnitude(sparsity=0.5, epochs=0), QuantizeWeights()],
        model,
        context,
    )
    weights = matrices(made)
    # Pruned to half, exactly; rounding keeps zeros and may add some.
    assert sum(int((w == 0).sum()) for w in weights) >= round(0.5 * sum(w.numel() for w in weights))
    assert all(len(w[0].unique()) <= 256 for w in weights)
    assert torch.isfinite(made(context.calibration(3))).all()


def test_factors_can_lose_filters(model, context):
    small = apply([Tucker2(share=0.6, of="rank", epochs=0)], model, context)
    before = profile(small, context.example).metrics
    smaller = apply([PruneFilters(ratio=0.5, epochs=0)], small, context)
    after = profile(smaller, context.example).metrics
    assert all(after[name] < before[name] for name in ("params", "flops", "size_bytes"))
    assert smaller(context.calibration(3)).shape == (3, 10)
