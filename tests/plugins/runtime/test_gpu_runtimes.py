"""Runtimes for CUDA devices alone: refused elsewhere; with a GPU, outputs are the model's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cnnbench.errors import Unsupported
from cnnbench_plugins.runtime.compile import Compile
from cnnbench_plugins.runtime.cuda_graphs import CudaGraphs
from cnnbench_plugins.runtime.onnxruntime import OnnxRuntime
from cnnbench_plugins.runtime.tensorrt import TensorRt


@pytest.mark.parametrize(("runtime", "name"), [(CudaGraphs(), "cuda_graphs"), (TensorRt(), "tensorrt")])
def test_refused_on_a_cpu(runtime, name, network, context):
    with pytest.raises(Unsupported, match=f"{name} serves on cuda; the model is on cpu"):
        runtime(network(1), context(1))


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("runtime", "package"),
    [
        (CudaGraphs(), None),
        (TensorRt(), "tensorrt"),
        (Compile(), None),
        (Compile(mode="reduce-overhead"), None),
        (OnnxRuntime(), "onnxruntime"),
    ],
)
def test_outputs_are_the_models_on_a_gpu(
    runtime, package, channels, network, context, assert_serves_alike, monkeypatch
):
    if package:
        found = pytest.importorskip(package)
        if package == "onnxruntime" and "CUDAExecutionProvider" not in found.get_available_providers():
            pytest.skip("this onnxruntime has no CUDA provider")
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    here = context(channels)
    assert_serves_alike(runtime, network(channels).cuda(), replace(here, images=here.images.cuda()))
