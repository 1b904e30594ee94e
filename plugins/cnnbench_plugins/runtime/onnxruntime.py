"""ONNX Runtime, in floating point and in int8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from cnnbench.technique import Requirement, technique

if TYPE_CHECKING:
    from cnnbench.lazy import nn
    from cnnbench.slots import ServingContext
    from cnnbench_plugins.runtime._serving import Serving

_REQUIRES = (Requirement("onnxruntime", "onnx"), Requirement("onnx", "onnx"), Requirement("onnxscript", "onnx"))


@technique("runtime", "onnxruntime", requires=_REQUIRES)
class OnnxRuntime:
    """Serves the model's ONNX file by ONNX Runtime, in the precision that it has.

    Exported for any number of images. All graph optimizations, operators one after another, as many threads as
    PyTorch would use. On CUDA devices by the CUDA provider where the installed onnxruntime has one, TF32 off. A network
    quantized to int8 (``quantize_ptq``) is served in int8.

    Worker threads spin within a call, which is the library's default, and stop when it ends
    (``session.force_spinning_stop``): by default they go on for a while and would take a core from whatever is measured
    next. With several threads each call so pays for waking them, a few microseconds that a server under steady load
    would not.

    Helps: nearly always faster than PyTorch's eager mode on CPUs, small batches most. Known not to help large
    convolutions, which are bound by arithmetic.
    """

    def __call__(self, model: nn.Module, context: ServingContext) -> Serving:
        """A function from model inputs [N, C, H, W] to logits [N, K]; raises ``Unsupported``."""
        from cnnbench_plugins.runtime._onnx import exported, open_session

        return open_session("onnxruntime", exported(model, context), context)


@technique("runtime", "onnxruntime_int8", requires=_REQUIRES)
class OnnxRuntimeInt8:
    """Quantizes the model's ONNX file to int8 with ONNX Runtime's own tool and serves it on the CPU.

    Static quantization, as in Jacob et al. 2018 (Quantization and Training of Neural Networks, section 2): batch norms
    folded, QuantizeLinear and DequantizeLinear around each operator (QDQ), weights symmetric S8 with a scale for each
    channel, activations affine U8 with the range (minimum to maximum) of ``calibration_images`` training images. On
    CPUs without VNNI weights have 7 bits, as 8-bit products would overflow there.

    Its outputs are not the model's: accuracy as served is recorded beside the model's own. Compare it with
    ``onnxruntime``, not with ``eager``, to see what the integers alone do.

    Helps: size, about a quarter; latency on CPUs with VNNI, at larger layers. Known not to help: small networks, where
    the conversions cost more than the integers save; depthwise convolutions and hard-swish, in speed and in accuracy.
    """

    exact: ClassVar[bool] = False

    calibration_images: Annotated[int, Ge(1)] = 256

    def __call__(self, model: nn.Module, context: ServingContext) -> Serving:
        """A function from model inputs [N, C, H, W] to logits [N, K]; raises ``Unsupported``."""
        from cnnbench_plugins.runtime._onnx import exported, open_session, quantized
        from cnnbench_plugins.runtime._serving import check_device

        check_device("onnxruntime_int8", context, "cpu")
        path = quantized(exported(model, context), context.calibration(self.calibration_images))
        return open_session("onnxruntime_int8", path, context)


TECHNIQUES = (OnnxRuntime, OnnxRuntimeInt8)
