"""ONNX Runtime: outputs, threads that rest between calls, int8."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import onnx
import onnxruntime

from cnnbench.errors import Unsupported
from cnnbench_plugins.runtime.onnxruntime import OnnxRuntime, OnnxRuntimeInt8


@pytest.mark.parametrize("channels", [1, 3])
def test_outputs_are_the_models(channels, network, context, assert_serves_alike):
    model = network(channels).to(memory_format=torch.channels_last)
    assert_serves_alike(OnnxRuntime(), model, context(channels, threads=2))


def test_size_is_that_of_the_file_that_one_would_ship(network, context):
    here = context(1)
    call = OnnxRuntime()(network(1), here)
    (file,) = here.folder.iterdir()
    assert call.size_bytes == file.stat().st_size


def test_threads_are_the_contexts_and_rest_between_calls(network, context, monkeypatch):
    opened = []
    session = onnxruntime.InferenceSession

    def spy(path, options, **others):
        opened.append(options)
        return session(path, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    OnnxRuntime()(network(3), context(3, threads=2))
    (options,) = opened
    assert options.intra_op_num_threads == 2
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_int8_follows_the_model_with_int8_weights_in_its_file(network, context):
    here = context(3)
    model = network(3)
    with torch.inference_mode():
        expected = model(here.images)
    call = OnnxRuntimeInt8(calibration_images=48)(model, here)
    served = torch.cat([call(here.images[i : i + 8]) for i in range(0, 64, 8)])
    error = float((served - expected).square().mean().sqrt())
    assert 0 < error < 0.1 * float(expected.square().mean().sqrt())
    graph = onnx.load(here.folder / "int8.onnx").graph
    weights = [i for i in graph.initializer if i.data_type == onnx.TensorProto.INT8 and len(i.dims) in {2, 4}]
    assert len(weights) == 5, "four convolutions and a linear layer"
    by_channel = [i for i in graph.initializer if i.name.endswith("weight_scale") and list(i.dims) == [16]]
    assert by_channel, "a scale for each channel"
    assert not OnnxRuntimeInt8.exact
    assert call.size_bytes == (here.folder / "int8.onnx").stat().st_size


def test_int8_ranges_come_from_the_calibration_images(network, context):
    here = context(3)
    model = network(3)
    few = OnnxRuntimeInt8(calibration_images=1)(model, here)(here.images[:8])
    many = OnnxRuntimeInt8(calibration_images=64)(model, here)(here.images[:8])
    assert not torch.equal(few, many)


def test_an_int8_network_is_served_in_int8(network, context):
    pytest.importorskip("torchao")
    from cnnbench_plugins.compressor.quantize_ptq import quantize

    here = context(1)
    model = quantize(network(1), here.images)
    with torch.inference_mode():
        expected = model(here.images[:8])
    call = OnnxRuntime()(model, here)
    assert float((call(here.images[:8]) - expected).abs().max()) < 0.05 * float(expected.abs().max())
    assert call.size_bytes < OnnxRuntime()(network(1), here).size_bytes * 2


def test_what_can_not_be_exported_is_skipped_with_the_reason(context):
    class Branches(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] if x.sum() > 0 else x.flatten(1)[:, 3:6]

    with pytest.raises(Unsupported, match="can't trace Branches"):
        OnnxRuntime()(Branches(), context(1))
