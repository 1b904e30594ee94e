"""TensorRT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.technique import Requirement, technique

if TYPE_CHECKING:
    from cnnbench.lazy import nn
    from cnnbench.slots import ServingContext
    from cnnbench_plugins.runtime._serving import Serving


@technique(
    "runtime",
    "tensorrt",
    requires=(
        Requirement("tensorrt", "tensorrt"),
        Requirement("onnx", "tensorrt"),
        Requirement("onnxscript", "tensorrt"),
    ),
)
class TensorRt:
    """Builds a TensorRT engine from the model's ONNX file and serves it on an NVIDIA GPU, in fp32.

    NVIDIA TensorRT documentation, Python API. One engine with an optimization profile for each batch size. TF32 is off,
    so that outputs are the model's but for rounding. Size is that of the engine, which fits this kind of GPU and this
    version of TensorRT alone.

    Helps on NVIDIA GPUs, small batches most. Known to need minutes to build. Skipped on anything but a CUDA device.
    """

    def __call__(self, model: nn.Module, context: ServingContext) -> Serving:
        """A function from model inputs [N, C, H, W] to logits [N, K]; raises ``Unsupported``."""
        from cnnbench_plugins.runtime._serving import check_device

        check_device("tensorrt", context, "cuda")  # before the import, which wants a GPU
        from cnnbench_plugins.runtime._tensorrt import serve

        return serve(model, context)


TECHNIQUES = (TensorRt,)
