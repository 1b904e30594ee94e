"""OpenVINO: outputs, precision, affinity."""

from __future__ import annotations

import psutil
import pytest
import torch

pytest.importorskip("openvino")
pytest.importorskip("onnxscript")

import openvino

from cnnbench_plugins.runtime.openvino import OpenVino


@pytest.mark.parametrize("channels", [1, 3])
def test_outputs_are_the_models(channels, network, context, assert_serves_alike):
    model = network(channels).to(memory_format=torch.channels_last)
    assert_serves_alike(OpenVino(), model, context(channels, threads=2))


def test_size_is_that_of_its_own_format_in_fp32(network, context):
    here = context(1)
    call = OpenVino()(network(1), here)
    files = [here.folder / "model.xml", here.folder / "model.bin"]
    assert call.size_bytes == sum(file.stat().st_size for file in files)
    constants = [op for op in openvino.Core().read_model(files[0]).get_ops() if op.get_type_name() == "Constant"]
    types = {op.get_element_type().get_type_name() for op in constants}
    assert "f32" in types
    assert not types & {"f16", "bf16"}


def test_the_process_keeps_its_cores(network, context):
    before = psutil.Process().cpu_affinity() if hasattr(psutil.Process, "cpu_affinity") else None
    here = context(1)
    call = OpenVino()(network(1), here)
    call(here.example)
    assert before is None or psutil.Process().cpu_affinity() == before
