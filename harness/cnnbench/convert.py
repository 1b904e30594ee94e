"""A network in formats that other programs read: an ONNX file, or a graph made by ``torch.export``."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cnnbench.errors import MissingDependency, Unsupported
from cnnbench.quiet import quiet

if TYPE_CHECKING:
    from pathlib import Path

INPUT, OUTPUT = "images", "logits"
"""What the one input and the one output of an exported network are called."""

# These speak of their own deprecations and of every operator that they pass over.
_TALKATIVE = ("torch.onnx", "torch.export", "torch.utils._pytree", "torch._dynamo", "onnxscript", "onnx_ir")


class _Exported(nn.Module):
    """Gives the input its name, and the network's own attributes a place of their own.

    A graph module has attributes such as ``graph``: the exporter trips over a network with a submodule of that name.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = False  # not by eval(), which would reach the network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, K] from model inputs [N, C, H, W]."""
        logits: torch.Tensor = self.network(images)
        return logits


def to_program(model: nn.Module, example: torch.Tensor, *, fixed: bool = False) -> torch.export.ExportedProgram:
    """The network as a graph for any number of images, or for one.

    Args:
        model: in eval mode, on the example's device; not changed.
        example: model inputs [n, C, H, W]; height and width are fixed by it.
        fixed: for as many images as the example has and no other number, for those who plan memory ahead.

    Raises:
        Unsupported: it can't be traced; one line says why.
    """
    # Two images: the exporter would take a batch of one for a constant. Empty ones: a saved program holds its example.
    blank = example.new_zeros((len(example) if fixed else 2, *example.shape[1:]))
    shapes = None if fixed else ({0: torch.export.Dim("batch")},)
    with quiet(*_TALKATIVE), torch.no_grad():
        try:
            program: torch.export.ExportedProgram = torch.export.export(
                _Exported(model), (blank,), dynamic_shapes=shapes
            )
        except Exception as error:
            raise Unsupported(f"torch.export can't trace {type(model).__name__}: {_reason(error)}") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # a saved program would hold this machine's paths
    return program


def to_pt2(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write the network as a file of ``torch.export``, which loads where torch is and nothing else.

    A network quantized to int8 keeps its int8 weights; rounding to int8 and back becomes arithmetic.

    Args:
        model: in eval mode, on the example's device; not changed.
        example: model inputs [n, C, H, W]; height and width are fixed by it.
        path: the file, which is replaced; its folder must be there.

    Raises:
        Unsupported: the network can't be traced or saved; one line says why.
    """
    program = to_program(model, example)
    with quiet(*_TALKATIVE), torch.no_grad():
        try:
            torch.export.save(_in_own_operators(program), path)
        except Exception as error:
            raise Unsupported(f"torch.export can't save {type(model).__name__}: {_reason(error)}") from error


def _in_own_operators(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The same graph without the operators that torch registers only for those who quantize."""
    found = {node.target for node in program.graph.nodes if str(node.target).startswith("quantized_decomposed.")}
    if not found:
        return program
    table = {target: _ARITHMETIC[target.name()] for target in found}
    plain: torch.export.ExportedProgram = program.run_decompositions(table)
    return plain


_Number = float | torch.Tensor


def _choose(
    x: torch.Tensor,
    lowest: int,
    highest: int,
    eps: float,
    dtype: torch.dtype,  # noqa: ARG001 - the operators' own signatures, here and below
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point [1] with which the levels span the values and 0."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = ((high - low) / float(highest - lowest)).clamp(min=eps)
    zero_point = (lowest - (low / scale).round()).clamp(lowest, highest)
    return scale.double().reshape(1), zero_point.long().reshape(1)


def _quantize(
    x: torch.Tensor, scale: _Number, zero_point: _Number, lowest: int, highest: int, dtype: torch.dtype
) -> torch.Tensor:
    return (x * _of_type(1.0 / scale, x)).round().add(zero_point).clamp(lowest, highest).to(dtype)


def _dequantize(
    x: torch.Tensor,
    scale: _Number,
    zero_point: _Number,
    lowest: int,  # noqa: ARG001
    highest: int,  # noqa: ARG001
    dtype: torch.dtype,  # noqa: ARG001
    *,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    values = x.to(out_dtype or torch.float32)
    return (values - zero_point) * _of_type(scale, values)


def _dequantize_channels(
    x: torch.Tensor,
    scales: torch.Tensor,
    zero_points: torch.Tensor | None,
    axis: int,
    lowest: int,  # noqa: ARG001
    highest: int,  # noqa: ARG001
    dtype: torch.dtype,  # noqa: ARG001
    *,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    shape = [-1 if place == axis else 1 for place in range(x.dim())]
    values = x.to(out_dtype or torch.float32)
    if zero_points is not None:
        values = values - zero_points.view(shape)
    return values * scales.view(shape)


def _of_type(number: _Number, x: torch.Tensor) -> _Number:
    """A double in a tensor would make the result one; a plain number would not."""
    return number.to(x.dtype) if isinstance(number, torch.Tensor) else number


_ARITHMETIC = {
    "quantized_decomposed::choose_qparams.tensor": _choose,
    "quantized_decomposed::quantize_per_tensor": _quantize,
    "quantized_decomposed::quantize_per_tensor.tensor": _quantize,
    "quantized_decomposed::dequantize_per_tensor": _dequantize,
    "quantized_decomposed::dequantize_per_tensor.tensor": _dequantize,
    "quantized_decomposed::dequantize_per_channel": _dequantize_channels,
}


def to_onnx(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write the network as one ONNX file, weights included, for any number of images.

    Its input is called ``images``, its output ``logits``. A network quantized to int8 keeps its int8 weights, with
    QuantizeLinear and DequantizeLinear around its layers.

    Args:
        model: in eval mode, on the example's device; not changed.
        example: model inputs [n, C, H, W]; height and width are fixed by it.
        path: the file, which is replaced; its folder must be there.

    Raises:
        MissingDependency: onnx or onnxscript is not installed.
        Unsupported: the network can't be traced, or has an operator that ONNX lacks; one line says which.
    """
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise MissingDependency(package, "onnx")
    import onnx

    program = to_program(model, example)
    with quiet(*_TALKATIVE), torch.no_grad():
        try:
            made = torch.onnx.export(
                program, dynamo=True, verbose=False, output_names=[OUTPUT], dynamic_shapes=({0: "batch"},)
            )
            assert made is not None  # the type that the old exporter answers with
            _without_remarks(made.model)
            onnx.checker.check_model(made.model_proto, full_check=True)  # of types too: not every one suits every node
            made.save(str(path), external_data=False)
        except Exception as error:
            raise Unsupported(f"{type(model).__name__} can't be written as ONNX: {_reason(error)}") from error


def _without_remarks(model: Any) -> None:
    """Drop what the exporter notes of each node for its own debugging: it can outweigh a small network.

    Args:
        model: an ``onnx_ir.Model``.
    """
    for graph in (model.graph, *model.functions.values()):
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _reason(error: BaseException) -> str:
    """The first line of what lies behind an exporter's error; its own text is a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
