"""OpenVINO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.technique import Requirement, technique

if TYPE_CHECKING:
    from cnnbench.lazy import nn
    from cnnbench.slots import ServingContext
    from cnnbench_plugins.runtime._serving import Serving


@technique(
    "runtime",
    "openvino",
    requires=(
        Requirement("openvino", "openvino"),
        Requirement("onnx", "openvino"),
        Requirement("onnxscript", "openvino"),
    ),
)
class OpenVino:
    """Serves the model's ONNX file by OpenVINO on the CPU, in fp32.

    Compiled for each batch size, with performance hint LATENCY: one stream with as many threads as PyTorch would use.
    Inference precision is set to f32, as OpenVINO would otherwise compute in bf16 on CPUs that are fast at it. Threads
    are not pinned by it. Size is that of its own format (IR), weights in fp32.

    Helps on x86 CPUs, small batches most. Known not to help large convolutions, which are bound by arithmetic.
    """

    def __call__(self, model: nn.Module, context: ServingContext) -> Serving:
        """A function from model inputs [N, C, H, W] to logits [N, K]; raises ``Unsupported``."""
        from cnnbench_plugins.runtime._openvino import serve

        return serve(model, context)


TECHNIQUES = (OpenVino,)
