from __future__ import annotations

import copy
import platform
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnbench.artifact import save_model
from cnnbench.errors import NoEffect, Unsupported
from cnnbench_plugins.compressor import _int8
from cnnbench_plugins.compressor._graph_codec import decode
from cnnbench_plugins.compressor.quantize_ptq import QuantizePtq, quantize

pytest.importorskip("torchao")
pytestmark = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="needs an x86 CPU")


@pytest.fixture(scope="module")
def _quantized(_trained, _context):
    return QuantizePtq()(_trained, _context)


@pytest.fixture
def int8(_quantized):
    return copy.deepcopy(_quantized)


def test_accuracy_is_within_one_point_of_fp32(model, int8, context):
    assert abs(context.validation_accuracy(int8) - context.validation_accuracy(model)) <= 0.01
    with torch.no_grad():
        exact, rounded = model(context.test_images), int8(context.test_images)
    assert 0 < (exact - rounded).norm() / exact.norm() < 0.1  # quantized it is, and not by much


def test_weights_are_stored_in_eight_bits_and_no_others_are_kept(model, int8):
    weights = {tuple(m.weight.shape): m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    stored = [p for p in int8.parameters() if p.dim() > 1]
    assert sorted(tuple(p.shape) for p in stored) == sorted(
        tuple(m.weight.shape) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)
    )
    assert all(p.dtype == torch.int8 and not p.requires_grad for p in stored)
    folded = {m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    assert {len(p) for p in int8.parameters() if p.dim() == 1} == folded | {10}
    # Scales give the weights back to within half a step (batch norm is folded into all but the classifier).
    scales = [b for b in int8.buffers() if b.dtype == torch.float32 and len(b) == 10]
    classifier = next(p for p in stored if p.shape == (10, 32))
    error = (classifier.float() * scales[0][:, None] - weights[10, 32]).abs()
    assert (error <= scales[0][:, None] * 0.5001).all()


def test_bytes_are_about_a_quarter(model, int8):
    def size(module):
        return sum(t.numel() * t.element_size() for t in module.state_dict().values())

    assert size(int8) < 0.4 * size(model)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_any_batch_size_gives_the_same_outputs(int8, context, batch):
    whole = int8(context.test_images[:14])
    parts = torch.cat([int8(part) for part in context.test_images[:14].split(batch)])
    torch.testing.assert_close(parts, whole)


def test_copies_give_the_same_outputs_and_modes_change_nothing(int8, context):
    x = context.test_images[:5]
    assert torch.equal(copy.deepcopy(int8)(x), int8(x))
    before = int8(x)
    assert int8.train().training is False
    assert torch.equal(int8.eval()(x), before)


def test_multiply_adds_are_still_counted(model, int8, context):
    counts = []
    for module in (model, int8):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(context.example)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def scales_of_weights(int8):
    """The scales of each stored weight, by the node that reads it."""
    return {
        node.name: getattr(int8.graph, node.args[1].target)
        for node in int8.graph.graph.nodes
        if str(node.target).startswith("quantized_decomposed.dequantize_per_channel")
    }


def test_one_scale_for_the_whole_weight(model, context):
    coarse = scales_of_weights(QuantizePtq(per_channel=False)(model, context))
    fine = scales_of_weights(QuantizePtq()(model, context))
    assert coarse.keys() == fine.keys()
    assert len(coarse) == 7
    for name, scales in coarse.items():
        assert (scales == scales[0]).all()
        assert fine[name].max() == scales[0]  # the widest channel decides for all
        assert fine[name].min() < scales[0]


def test_a_scale_for_each_channel_serves_channels_of_unlike_size():
    # Outputs of a random network can't tell: there the activations' rounding hides the weights'.
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(4, 8, 3, bias=False)
    images = torch.randn(32, 4, 8, 8, generator=generator)
    with torch.no_grad():
        weight = torch.randn(layer.weight.shape, generator=generator)
        layer.weight.copy_(weight * 2.0 ** torch.arange(-4, 4).view(-1, 1, 1, 1))
        exact = layer(images)
        model = nn.Sequential(layer, nn.Flatten())
        fine, coarse = (quantize(model, images, per_channel=each)(images).view_as(exact) for each in (True, False))

    def error(outputs):  # of the smallest channel
        return (outputs - exact)[:, 0].norm() / exact[:, 0].norm()

    assert error(fine) < 0.02 < 0.2 < error(coarse)


def test_the_model_is_not_changed(model, context):
    before = copy.deepcopy(model.state_dict())
    QuantizePtq(calibration_images=8)(model, context)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_deploy_compiles_int8_kernels():
    from torch._inductor import config

    if not _int8.cpp_compiler():
        pytest.skip("no C++ compiler")
    # As small as can be: compiling takes seconds.
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(32, 16, 6, 6, generator=generator)
    model = quantize(nn.Sequential(nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)), images)
    run = model.deploy(images[:1])
    assert (model.kernels, model.kernels_reason) == ("int8", "")
    for batch in (images[:1], images.contiguous(memory_format=torch.channels_last)):
        reference = model(batch)
        assert (run(batch) - reference).norm() / reference.norm() < 0.05
    assert config.freezing is False  # nobody else's compilation is changed


@pytest.mark.slow
def test_a_process_that_did_not_quantize_finds_the_kernels_too(tmp_path):
    """Latency is taken by whichever worker is free: not always the one that compressed."""
    if not _int8.cpp_compiler():
        pytest.skip("no C++ compiler")
    images = torch.randn(8, 16, 6, 6, generator=torch.Generator().manual_seed(0))
    model = quantize(nn.Sequential(nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)), images)
    save_model(tmp_path / "model.pt", model, nn.Identity())
    script = (
        "import pathlib, sys, torch; from cnnbench.artifact import load_model;"
        "model = load_model(pathlib.Path(sys.argv[1])).model; model.deploy(torch.randn(1, 16, 6, 6));"
        "print(model.kernels, model.kernels_reason)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "model.pt")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.stdout.split(), done.returncode) == (["int8"], 0), done.stderr


def test_deploy_without_a_compiler_falls_back_and_says_so(int8, context, monkeypatch):
    monkeypatch.setattr(_int8, "cpp_compiler", lambda: None)
    run = int8.deploy(context.example)
    assert int8.kernels == "reference"
    assert "no C++ compiler" in int8.kernels_reason
    assert torch.equal(run(context.example), int8(context.example))


def test_models_that_cannot_be_quantized(context, monkeypatch):
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    x = context.calibration(4)
    with pytest.raises(Unsupported, match="quantize_ptq can't quantize Branching: "):
        quantize(Branching(), x)
    with pytest.raises(NoEffect, match="quantized nothing"):
        quantize(nn.Sequential(nn.ReLU(), nn.Flatten()), x)
    with pytest.raises(Unsupported, match="on meta"):
        quantize(nn.Flatten(), x.to("meta"))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(Unsupported, match="this is aarch64"):
        quantize(nn.Flatten(), x)


def test_a_tampered_graph_is_refused(int8):
    root = int8.graph
    good = int8.__getstate__()["nodes"]
    call = next(i for i, node in enumerate(good) if node["op"] == "call_function")
    for change in (
        {"target": "os.system"},
        {"target": "operator.attrgetter"},
        {"target": "aten.no_such_operator.default"},
        {"target": "prims.add.default"},
        {"op": "call_method", "target": "backward"},
        {"name": "x):\n  import os"},
        {"args": [{"node": "nowhere"}]},
        {"args": [{"torch": "load"}]},
    ):
        nodes = copy.deepcopy(good)
        nodes[call].update(change)
        with pytest.raises(ValueError, match=r"graph node (calls|has|refers)"):
            decode(nodes, root)
