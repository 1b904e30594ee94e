"""Quantization behind other compressors, by the harness's own chain, and on networks of other kinds."""

from __future__ import annotations

import copy
import math
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torchvision.models import convnext_tiny, mobilenet_v2, shufflenet_v2_x0_5

from cnnbench.errors import Unsupported
from cnnbench.stages import compress as stage
from cnnbench.stages.profile import profile, saved_bytes
from cnnbench_plugins.compressor._simulated import Simulated
from cnnbench_plugins.compressor.binarize import Binary, Ternary
from cnnbench_plugins.compressor.cp import Cp
from cnnbench_plugins.compressor.half import Half
from cnnbench_plugins.compressor.lottery_ticket import LotteryTicket
from cnnbench_plugins.compressor.low_rank import SpatialSvd, Svd
from cnnbench_plugins.compressor.mixed_precision import MixedPrecision
from cnnbench_plugins.compressor.prune_filters import PruneFilters
from cnnbench_plugins.compressor.prune_n_m import PruneNM
from cnnbench_plugins.compressor.prune_weights import PruneMagnitude
from cnnbench_plugins.compressor.quantize_dynamic import QuantizeDynamic
from cnnbench_plugins.compressor.quantize_ptq import QuantizePtq, quantize
from cnnbench_plugins.compressor.quantize_qat import QuantizeQat
from cnnbench_plugins.compressor.quantize_weights import QuantizeWeights
from cnnbench_plugins.compressor.tucker2 import Tucker2
from cnnbench_plugins.compressor.weight_sharing import WeightSharing

if TYPE_CHECKING:
    from cnnbench.seeds import Streams


@dataclass(frozen=True)
class Family:
    family: str = "trial"


@pytest.fixture
def chain(context, monkeypatch):
    def run(model, *techniques):
        monkeypatch.setattr(stage, "Context", lambda *arguments: context)
        streams: Streams = Family()
        return stage.compress(model, techniques, None, None, streams)

    return run


def layers(model):
    return [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def weight_bytes(made):
    """What the weights would take, of the whole nominal size."""
    return made.deployed_bytes - saved_bytes(made.network) + 4 * sum(m.weight.numel() for m in layers(made))


def test_pruning_and_fewer_bits_multiply(chain, model):
    dense = 4 * sum(m.weight.numel() for m in layers(model))
    scales = 4 * sum(m.weight.shape[0] for m in layers(model))
    few = weight_bytes(chain(model, QuantizeWeights(bits=4))) - scales
    assert few == dense / 8
    both = weight_bytes(chain(model, PruneMagnitude(sparsity=0.9, scope="layer", epochs=0), QuantizeWeights(bits=4)))
    both -= scales
    # A tenth of the weights, each with its 4 bits and, but for the small classifier's 5, 8 bits for its place.
    assert both == pytest.approx(dense / 8 * 0.1 * (4 + 8) / 4, rel=0.05)


def test_deep_compression_is_pruning_and_a_codebook(chain, model, context):
    made = chain(model, PruneMagnitude(sparsity=0.8, epochs=1), WeightSharing(bits=4, epochs=1))
    zeros = sum(int((m.weight == 0).sum()) for m in layers(made))
    assert zeros >= round(0.8 * sum(m.weight.numel() for m in layers(made)))
    assert weight_bytes(made) < weight_bytes(chain(model, WeightSharing(bits=4, epochs=1)))
    assert profile(made, context.example).methods == {"size_bytes": "nominal"}
    assert context.validation_accuracy(made) > 0.85


def test_the_last_format_counts(chain, model):
    made = chain(
        model, PruneMagnitude(sparsity=0.5, epochs=0), QuantizeWeights(bits=8), WeightSharing(bits=3, epochs=0)
    )
    assert made.formats == dict.fromkeys(made.formats, (3, 32))
    assert isinstance(made, Simulated)
    assert not any(isinstance(m, Simulated) for m in made.network.modules())


@pytest.mark.parametrize("first", [SpatialSvd(share=0.5, epochs=0), PruneFilters(epochs=0)], ids=["svd", "filters"])
def test_smaller_tensors_are_counted_as_they_are(chain, model, first):
    smaller = chain(model, first)
    made = chain(model, first, QuantizeWeights(bits=4))
    weights = [m.weight for m in layers(made)]
    assert [w.shape for w in weights] == [m.weight.shape for m in layers(smaller)]
    assert weight_bytes(made) == sum(math.ceil(w.numel() / 2) + 4 * len(w) for w in weights)
    assert sum(w.numel() for w in weights) < sum(m.weight.numel() for m in layers(model))


def test_filters_then_int8_and_filters_then_four_bits(chain, model, context):
    pytest.importorskip("torchao")
    for bits in (8, 4):
        alone, both = (
            profile(chain(model, *before, QuantizePtq(bits=bits)), context.example)
            for before in ([], [PruneFilters(epochs=0)])
        )
        assert both.metrics["size_bytes"] < 0.75 * alone.metrics["size_bytes"]
        assert both.metrics["params"] < 0.4 * alone.metrics["params"]
        assert both.methods == alone.methods == ({} if bits == 8 else {"size_bytes": "nominal"})


def test_rounding_then_filters_is_no_longer_rounded(chain, model, context):
    made = chain(model, QuantizeWeights(bits=4), PruneFilters(epochs=0))
    assert profile(made, context.example).methods == {}
    assert made(context.test_images[:2]).shape == (2, 10)


TECHNIQUES = [
    QuantizeWeights(bits=4),
    QuantizePtq(bits=4, calibration_images=4),
    QuantizeQat(bits=4, epochs=1, calibration_images=4),
    Binary(epochs=1, activations=True),
    Ternary(epochs=1),
    WeightSharing(bits=4, epochs=1),
    Half(),
]


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    made = {
        "mobilenet_v2": mobilenet_v2(num_classes=10, width_mult=0.25),
        "shufflenet_v2": shufflenet_v2_x0_5(num_classes=10),
        "convnext": convnext_tiny(num_classes=10),
    }
    del made["convnext"].features[2:]
    made["convnext"].classifier = nn.Sequential(nn.Flatten(), nn.Linear(96, 10))
    return {name: model.eval() for name, model in made.items()}


@pytest.mark.parametrize("name", ["mobilenet_v2", "shufflenet_v2", "convnext"])
@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda t: type(t).__name__)
def test_networks_of_torchvision(networks, context, name, technique):
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    class Small(type(context)):
        def train(self, model, *, observers=(), learning_rate=None, epochs=1, loss=None):
            model.train()
            model(self.train_images).square().sum().backward()
            with torch.no_grad():
                for parameter in (p for p in model.parameters() if p.grad is not None):
                    parameter.sub_(1e-3 * parameter.grad.sign())
            for observer in observers:
                observer.after_step(model, 0)
            model.eval()

    made = technique(copy.deepcopy(networks[name]), Small(images, torch.zeros(4), images, torch.zeros(4)))
    outputs = made(images)
    assert outputs.isfinite().all()
    assert outputs.shape == (4, 10)
    torch.testing.assert_close(made(images[:1]), outputs[:1], atol=0.1, rtol=0.1)
    if isinstance(made, Simulated):
        assert made.deployed_bytes < saved_bytes(networks[name])
        assert made.deploy(images[:1])(images).shape == (4, 10)


@pytest.fixture(scope="module")
def int8(_context):
    pytest.importorskip("torchao")
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("needs an x86 CPU")
    return quantize(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), _context.train_images[:2])


@pytest.mark.parametrize(
    "technique",
    [
        *(PruneMagnitude(), PruneNM(), PruneFilters(), PruneFilters(importance="taylor"), LotteryTicket()),
        *(Svd(), SpatialSvd(), Cp(), Tucker2(), QuantizePtq(), QuantizePtq(bits=4), QuantizeDynamic(), QuantizeQat()),
        *(QuantizeWeights(), MixedPrecision(), WeightSharing(), Binary(), Half()),
    ],
    ids=lambda t: type(t).__name__,
)
def test_an_int8_graph_can_be_followed_by_nothing(int8, context, technique):
    with pytest.raises(Unsupported, match="an int8 graph, whose weights can't be changed any more: put quantization l"):
        technique(copy.deepcopy(int8), context)
    assert context.trained_epochs == []
