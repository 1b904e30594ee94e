"""TensorRT engines, by the API of TensorRT 10 and 11."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorrt as trt
import torch

from cnnbench.convert import INPUT, OUTPUT, to_onnx
from cnnbench.errors import Unsupported
from cnnbench_plugins.runtime._serving import Serving

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from cnnbench.slots import ServingContext


def serve(model: nn.Module, context: ServingContext) -> Serving:
    """Build an engine for the context's batch sizes.

    Raises:
        Unsupported: the model can't be exported, or TensorRT can't build it.
    """
    path = context.folder / "model.onnx"
    to_onnx(model.eval(), context.example, path)
    device = context.example.device
    shapes = [torch.Size((size, *context.example.shape[1:])) for size in context.batch_sizes]
    with torch.cuda.device(device):
        logger = trt.Logger(trt.Logger.ERROR)
        plan = _built(path, shapes, logger)
        engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
        if engine is None:
            raise Unsupported("tensorrt: the engine can't be loaded")
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # on the default stream TensorRT synchronizes more than it has to
        ready = {shape: _prepared(engine, index, shape, stream) for index, shape in enumerate(shapes)}

    def run(images: torch.Tensor) -> torch.Tensor:
        execution = ready[images.shape]
        images = images.contiguous()
        logits = torch.empty(tuple(execution.get_tensor_shape(OUTPUT)), device=device)
        execution.set_tensor_address(INPUT, images.data_ptr())
        execution.set_tensor_address(OUTPUT, logits.data_ptr())
        caller = torch.cuda.current_stream(device)
        stream.wait_stream(caller)
        if not execution.execute_async_v3(stream.cuda_stream):
            raise RuntimeError(f"tensorrt: the engine failed on {len(images)} images")
        caller.wait_stream(stream)
        return logits

    return Serving(run, plan.nbytes)


def _built(path: Path, shapes: list[torch.Size], logger: Any) -> Any:
    """A serialized engine with one optimization profile for each shape."""
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(path.read_bytes()):
        raise Unsupported(f"tensorrt: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default, and no longer fp32
    for shape in shapes:
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT, tuple(shape), tuple(shape), tuple(shape))
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise Unsupported("tensorrt: no engine can be built for this network")
    return plan


def _prepared(engine: Any, index: int, shape: torch.Size, stream: torch.cuda.Stream) -> Any:
    """An execution context for one shape."""
    execution = engine.create_execution_context()
    execution.set_optimization_profile_async(index, stream.cuda_stream)
    stream.synchronize()
    execution.set_input_shape(INPUT, tuple(shape))
    return execution
