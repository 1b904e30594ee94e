from __future__ import annotations

import platform

import pytest
import torch
from torch import nn

from cnnbench.artifact import load_model, save_model
from cnnbench.errors import NoEffect, Unsupported
from cnnbench.surgery import fold_for_inference
from cnnbench_plugins.compressor import _int8
from cnnbench_plugins.compressor.quantize_dynamic import QuantizeDynamic, quantize_linear
from cnnbench_plugins.regularizer.dropconnect import DropConnect

pytest.importorskip("torchao")
pytestmark = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="needs an x86 CPU")


def test_linear_layers_are_int8_and_convolutions_are_not(model, context, tmp_path):
    made = QuantizeDynamic()(model, context)
    stored = {tuple(p.shape): p.dtype for p in made.parameters() if p.dim() > 1}
    assert stored.pop((10, 32)) == torch.int8
    assert set(stored.values()) == {torch.float32}
    assert len(stored) == 5  # two of six convolutions have the same shape
    convolutions = [n for n in made.graph.graph.nodes if "conv2d" in str(n.target)]
    assert not any("quantize" in str(arg) for node in convolutions for arg in node.args)
    with torch.no_grad():
        exact, rounded = model(context.test_images), made(context.test_images)
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.02
    save_model(tmp_path / "model.pt", made, nn.Identity())
    assert torch.equal(load_model(tmp_path / "model.pt").model(context.test_images), rounded)


def test_ranges_are_the_batchs_own():
    torch.manual_seed(0)
    layer = nn.Linear(16, 10, bias=False)
    made = quantize_linear(nn.Sequential(nn.Flatten(), layer), torch.zeros(2, 1, 4, 4))
    images = torch.randn(6, 1, 4, 4)
    for size in (0.1, 1.0, 1e3):  # far from anything that it was made with
        exact = layer(images.flatten(1)) * size
        assert (made(images * size) - exact).norm() / exact.norm() < 0.02
    # The formula: affine over the whole batch, which reaches to 0.
    x, w = images.flatten(1), layer.weight.detach()
    scale, zero = (x.max() - x.min()) / 255, (-x.min() / ((x.max() - x.min()) / 255)).round()
    rounded = ((x / scale).round() + zero).clamp(0, 255)
    steps = w.abs().amax(1, keepdim=True) / 127.5
    expected = ((rounded - zero) * scale) @ ((w / steps).round().clamp(-128, 127) * steps).T
    torch.testing.assert_close(made(images), expected, atol=1e-2, rtol=1e-2)
    assert (made(images) - expected).norm() < 0.2 * (made(images) - layer(x)).norm()


def test_int8_kernels_are_compiled():
    if not _int8.cpp_compiler():
        pytest.skip("no C++ compiler")
    images = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    model = quantize_linear(nn.Sequential(nn.Flatten(), nn.Linear(16, 10)), images)
    run = model.deploy(images)
    assert (model.kernels, model.kernels_reason) == ("int8", "")
    torch.testing.assert_close(run(images), model(images), atol=0.02, rtol=0.02)


def test_without_linear_layers_nothing_happens(context, monkeypatch):
    with pytest.raises(NoEffect, match="quantized nothing: the model has no linear layer"):
        QuantizeDynamic()(nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()), context)
    with pytest.raises(Unsupported, match="quantize_dynamic has int8 kernels for x86 CPUs alone; the model is on meta"):
        quantize_linear(nn.Flatten(), context.example.to("meta"))


def test_a_layer_trained_with_dropconnect_is_quantized(context):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    DropConnect().prepare(model, context.generator)
    fold_for_inference(model)
    made = QuantizeDynamic()(model, context)
    assert {tuple(p.shape): p.dtype for p in made.parameters()}[10, 64] == torch.int8
