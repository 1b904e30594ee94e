"""Models compiled by OpenVINO, once for each batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openvino
import torch

from cnnbench.convert import to_onnx
from cnnbench.errors import Unsupported
from cnnbench_plugins.runtime._serving import Serving, check_device

if TYPE_CHECKING:
    from torch import nn

    from cnnbench.slots import ServingContext


def serve(model: nn.Module, context: ServingContext) -> Serving:
    """Compile for the example's batch size now and for others when they come.

    Raises:
        Unsupported: not on CPU, or the model can't be exported, read or compiled.
    """
    check_device("openvino", context, "cpu")
    source, ir = context.folder / "model.onnx", context.folder / "model.xml"
    to_onnx(model.eval(), context.example, source)
    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": context.threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,  # it would move threads that others are measured with
    }
    ready: dict[torch.Size, Any] = {}

    def request(shape: torch.Size) -> Any:
        network = core.read_model(ir)
        network.reshape(list(shape))
        return core.compile_model(network, "CPU", settings).create_infer_request()

    def run(images: torch.Tensor) -> torch.Tensor:
        infer = ready.get(images.shape)
        if infer is None:
            infer = ready[images.shape] = request(images.shape)
        found = infer.infer([images.contiguous().numpy()], share_inputs=True, share_outputs=True)
        return torch.from_numpy(found[0].copy())  # the next call writes to the same memory

    try:
        # Half-precision weights are its default for a file.
        openvino.save_model(core.read_model(source), ir, compress_to_fp16=False)
        run(context.example)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise Unsupported(f"openvino: {lines[-1][:200] if lines else type(error).__name__}") from error
    return Serving(run, ir.stat().st_size + ir.with_suffix(".bin").stat().st_size)
