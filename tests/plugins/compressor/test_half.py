from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from cnnbench.artifact import load_model, save_model
from cnnbench.errors import NoEffect, Unsupported
from cnnbench.stages.profile import profile
from cnnbench_plugins.compressor._half import HalfModel
from cnnbench_plugins.compressor.half import Half
from cnnbench_plugins.compressor.quantize_ptq import quantize
from cnnbench_plugins.compressor.quantize_weights import QuantizeWeights

BF16 = torch.bfloat16


def size(module):
    return sum(t.numel() * t.element_size() for t in module.state_dict().values())


def test_weights_are_halved_and_norms_are_not(model, context, tmp_path):
    norms = sum(size(m) for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    before, bytes_before = profile(model, context.example).metrics, size(model)
    made = Half()(copy.deepcopy(model), context)
    assert size(made) == norms + (bytes_before - norms) / 2
    for module in made.network.modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            expected = torch.float32 if isinstance(module, nn.BatchNorm2d) else BF16
            assert tensor.dtype in (expected, torch.int64)
    found = profile(made, context.example)
    assert found.methods == {}  # measured
    assert {k: found.metrics[k] for k in ("params", "flops")} == {k: before[k] for k in ("params", "flops")}
    with torch.no_grad():
        exact, rounded = model(context.test_images), made(context.test_images)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.02
    save_model(tmp_path / "model.pt", made, nn.Identity())
    assert torch.equal(load_model(tmp_path / "model.pt").model(context.test_images), rounded)


def test_weights_are_those_of_torchs_cast(model, context):
    made = Half()(copy.deepcopy(model), context)
    assert torch.equal(made.network[0].weight, model[0].weight.to(BF16))


def test_fp16_on_a_cpu_is_refused(model, context):
    with pytest.raises(Unsupported, match="fp16 on a CPU is emulated and many times slower than fp32: use bf16"):
        Half(dtype="fp16")(model, context)


def test_after_rounding_the_network_alone_is_cast(model, context):
    made = Half()(QuantizeWeights(bits=4)(model, context), context)
    assert isinstance(made, HalfModel)
    assert getattr(made, "deployed_bytes", None) is None
    assert profile(made, context.example).methods == {}


def test_models_that_cannot_be_cast(model, context):
    with pytest.raises(NoEffect, match="cast nothing"):
        Half()(nn.Flatten(), context)
    with pytest.raises(NoEffect, match="cast nothing"):
        Half()(Half()(model, context).network, context)

    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, x):
            return self.layer(x.flatten(1).float())

    with pytest.raises(Unsupported, match="Stubborn can't compute in bf16: "):
        Half()(Stubborn(), context)

    class Large(Stubborn):
        def forward(self, x):
            return self.layer(x.flatten(1)) * 1e38 * 1e38

    with pytest.raises(Unsupported, match="Large overflows in bf16: its outputs are not finite"):
        Half()(Large(), context)


def test_an_int8_network_is_left_alone(context):
    pytest.importorskip("torchao")
    images = torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    model = quantize(nn.Sequential(nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 10)), images)

    class Other(type(context)):
        @property
        def example(self):
            return images[:1]

    other = Other(context.train_images, context.train_labels, context.test_images, context.test_labels)
    with pytest.raises(Unsupported, match="an int8 graph, whose weights can't be changed any more"):
        Half()(model, other)
