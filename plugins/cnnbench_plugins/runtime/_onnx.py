"""ONNX files and ONNX Runtime's sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxruntime
import torch
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from cnnbench.convert import INPUT, to_onnx
from cnnbench.errors import Unsupported
from cnnbench.quiet import quiet
from cnnbench_plugins.compressor._pt2e import has_vnni
from cnnbench_plugins.runtime._serving import Serving, check_device

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from cnnbench.slots import ServingContext

_CALIBRATION_BATCH = 32


def exported(model: nn.Module, context: ServingContext) -> Path:
    """The model as ``model.onnx`` in the context's folder.

    Raises:
        Unsupported: it can't be exported.
    """
    path = context.folder / "model.onnx"
    to_onnx(model.eval(), context.example, path)
    return path


def open_session(runtime: str, path: Path, context: ServingContext) -> Serving:
    """Serve an ONNX file.

    Raises:
        Unsupported: ONNX Runtime has no provider for the device or no kernel for an operator.
    """
    check_device(runtime, context, "cpu", "cuda")
    device = context.example.device
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = context.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=_providers(runtime, device))
    except Exception as error:
        raise Unsupported(f"{runtime}: {str(error).splitlines()[0][:200]}") from error
    (output,) = session.get_outputs()

    def on_cpu(images: torch.Tensor) -> torch.Tensor:
        (logits,) = session.run(None, {INPUT: images.contiguous().numpy()})
        return torch.from_numpy(logits)

    def on_cuda(images: torch.Tensor) -> torch.Tensor:
        images = images.contiguous()
        logits = torch.empty((len(images), output.shape[1]), device=device)
        torch.cuda.current_stream(device).synchronize()  # the session has a stream of its own
        binding, index = session.io_binding(), device.index or 0
        binding.bind_input(INPUT, "cuda", index, "float32", tuple(images.shape), images.data_ptr())
        binding.bind_output(output.name, "cuda", index, "float32", tuple(logits.shape), logits.data_ptr())
        session.run_with_iobinding(binding)
        return logits

    return Serving(on_cpu if device.type == "cpu" else on_cuda, path.stat().st_size)


def _providers(runtime: str, device: torch.device) -> list[Any]:
    if device.type == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise Unsupported(f"{runtime}: the installed onnxruntime has no CUDA provider: pip install onnxruntime-gpu")
    return [("CUDAExecutionProvider", {"device_id": device.index or 0, "use_tf32": 0}), "CPUExecutionProvider"]


class _Calibration:
    """Hands training images out in batches, as ONNX Runtime's calibration asks for them."""

    def __init__(self, images: torch.Tensor) -> None:
        self._batches = iter(torch.split(images, _CALIBRATION_BATCH))

    def get_next(self) -> dict[str, Any] | None:
        """The next batch by the input's name; None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch.contiguous().numpy()}


def quantized(path: Path, images: torch.Tensor) -> Path:
    """An int8 copy of an ONNX file, beside it.

    Args:
        path: the file.
        images: model inputs [n, C, H, W]; activation ranges are taken from them.

    Raises:
        Unsupported: it can't be quantized.
    """
    prepared, result = path.with_name("prepared.onnx"), path.with_name("int8.onnx")
    with quiet(""):
        try:
            quant_pre_process(str(path), str(prepared))
            quantization.quantize_static(
                str(prepared),
                str(result),
                _Calibration(images),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                reduce_range=not has_vnni(),
            )
        except Exception as error:
            raise Unsupported(
                f"onnxruntime_int8: {(str(error) or type(error).__name__).splitlines()[0][:200]}"
            ) from error
    return result
