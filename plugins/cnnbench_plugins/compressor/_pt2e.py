"""int8 by torchao's PT2E: export, prepare, calibrate, convert."""

from __future__ import annotations

import operator
import platform
import pydoc
from typing import Any

import torch
from torch import nn

from cnnbench.errors import NoEffect, Unsupported
from cnnbench_plugins.compressor._changeable import check_changeable
from cnnbench_plugins.compressor._int8 import Int8Model
from cnnbench_plugins.compressor._quiet import quiet_quantizers

_CHUNK = 64  # images a calibration pass, to bound memory


def convert(model: nn.Module, calibration: torch.Tensor, quantizer: Any, technique: str, *, layers: str) -> Int8Model:
    """Quantize as a quantizer of torchao's annotates.

    Args:
        model: on CPU; not changed.
        calibration: model inputs [n, C, H, W]; ranges that are fixed beforehand are taken from them.
        quantizer: one of torchao's PT2E quantizers.
        technique: its name, for messages.
        layers: which layers it looks for, for messages.

    Raises:
        Unsupported: the model can't be exported or quantized, or was before.
        NoEffect: it has no layer to quantize.
    """
    check_changeable(model)
    with quiet_quantizers():
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    try:
        # The exporter draws from torch's own generator.
        with torch.no_grad(), quiet_quantizers(), torch.random.fork_rng(devices=[]):
            prepared = prepare_pt2e(_exported(model, calibration), quantizer)
            for chunk in torch.split(calibration, _CHUNK):
                prepared(chunk)
            quantized = Int8Model.from_graph(convert_pt2e(prepared))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Unsupported(f"{technique} can't quantize {type(model).__name__}: {reason}") from error
    if not any(parameter.dtype == torch.int8 for parameter in quantized.parameters()):
        raise NoEffect(f"quantized nothing: the model has no {layers}")
    return quantized


def check_platform(technique: str, device: torch.device) -> None:
    """Raise ``Unsupported`` where there are no int8 kernels."""
    if device.type != "cpu":
        raise Unsupported(f"{technique} has int8 kernels for x86 CPUs alone; the model is on {device}")
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise Unsupported(f"{technique} has int8 kernels for x86 CPUs alone; this is {platform.machine()}")


def has_vnni() -> bool:
    """Whether this CPU sums products of 8-bit integers in 32 bits."""
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name)) for name in ("avx512_vnni", "avx_vnni", "avx2_vnni"))


def _exported(model: nn.Module, calibration: torch.Tensor) -> torch.fx.GraphModule:
    """The model as a graph for any batch size, each call of a module under a path of its own."""
    # Two images: a batch of one would be taken for a constant.
    example = calibration[:2] if len(calibration) > 1 else calibration.repeat(2, 1, 1, 1)
    program = torch.export.export(model.eval(), (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    graph_module = program.module()
    assert isinstance(graph_module, torch.fx.GraphModule)
    for node in graph_module.graph.nodes:
        stack: dict[str, tuple[str, Any]] | None = node.meta.get("nn_module_stack")
        if stack:
            # A module that is called again has "@1" in its key but not in its path, by which torchao groups nodes.
            node.meta["nn_module_stack"] = {
                key: (f"{path}@{key.rpartition('@')[2]}" if "@" in key else path, kind)
                for key, (path, kind) in stack.items()
            }
            _name_source(node)
    return graph_module


def _name_source(node: torch.fx.Node) -> None:
    """Say which layer a node comes from, where torch.export does not.

    torchao asks torch's source matcher for convolutions, linear layers and additions. Up to torch 2.11 that matcher
    knows only ``source_fn_stack``, which export no longer writes.
    """
    if node.op != "call_function" or "source_fn_stack" in node.meta:
        return
    path, kind = list(node.meta["nn_module_stack"].values())[-1]
    layer = pydoc.locate(kind) if isinstance(kind, str) else kind
    if isinstance(layer, type) and layer.__module__.startswith("torch.nn.modules."):
        node.meta["source_fn_stack"] = [(path, layer)]
    elif node.target in (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor):
        node.meta["source_fn_stack"] = [(node.name, operator.add)]
