"""Post-training quantization: 8-bit integers in place of floating point, without retraining."""

from __future__ import annotations

import dataclasses
import operator
import platform
import pydoc
import warnings
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from cnnbench import Requirement, technique
from cnnbench.errors import NoEffect, Unsupported
from cnnbench.lazy import nn, torch
from cnnbench_plugins.compressor._quiet import quiet_loggers

if TYPE_CHECKING:
    from cnnbench.slots import CompressionContext
    from cnnbench_plugins.compressor._int8 import Int8Model

_CHUNK = 64  # images a calibration pass, to bound memory


def quantize(model: nn.Module, calibration: torch.Tensor, *, per_channel: bool = True) -> Int8Model:
    """Quantize weights and activations of convolutions and linear layers to 8 bits.

    Args:
        model: on CPU; not changed.
        calibration: model inputs [n, C, H, W]; activation ranges are taken from them.
        per_channel: one weight scale for each output channel, or one for the whole weight.

    Returns:
        A module from model inputs of any batch size to logits.

    Raises:
        Unsupported: not an x86 CPU, or the model can't be exported or quantized.
        NoEffect: it has no layer to quantize.
    """
    with quiet_loggers():
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from cnnbench_plugins.compressor._int8 import Int8Model

    _check_platform(calibration)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's and torchao's own deprecations
            prepared = prepare_pt2e(_exported(model, calibration), _quantizer(per_channel=per_channel))
            for chunk in torch.split(calibration, _CHUNK):
                prepared(chunk)
            quantized = Int8Model.from_graph(convert_pt2e(prepared))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Unsupported(f"quantize_ptq can't quantize {type(model).__name__}: {reason}") from error
    if not any(parameter.dtype == torch.int8 for parameter in quantized.parameters()):
        raise NoEffect("quantized nothing: the model has no convolution or linear layer")
    return quantized


def _check_platform(calibration: torch.Tensor) -> None:
    if calibration.device.type != "cpu":
        raise Unsupported(f"quantize_ptq has int8 kernels for x86 CPUs alone; the model is on {calibration.device}")
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise Unsupported(f"quantize_ptq has int8 kernels for x86 CPUs alone; this is {platform.machine()}")


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


def _quantizer(*, per_channel: bool) -> Any:
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    # Without VNNI, 8-bit products are summed in 16 bits and may saturate: activations then get 7 bits.
    config = x86.get_default_x86_inductor_quantization_config(reduce_range=not _has_vnni())
    if not per_channel:
        from cnnbench_plugins.compressor._int8_observer import SharedScaleObserver

        observer = SharedScaleObserver.with_args(eps=2**-12)
        weight = dataclasses.replace(config.weight, observer_or_fake_quant_ctr=observer)
        config = dataclasses.replace(config, weight=weight)
    return x86.X86InductorQuantizer().set_global(config)


def _has_vnni() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name)) for name in ("avx512_vnni", "avx_vnni", "avx2_vnni"))


@technique("compressor", "quantize_ptq", requires=(Requirement("torchao", "compress"),))
class QuantizePtq:
    """Quantizes weights and activations to int8 after training, with int8 kernels on x86 CPUs.

    Jacob et al. 2018 (Quantization and Training of Neural Networks, section 2), post training as in Krishnamoorthi 2018
    (section 3): q = clamp(round(x / s) + z). Weights are symmetric in -128..127 with a scale s for each output channel
    (or one for the tensor); activations affine in 0..255 (0..127 on CPUs without VNNI) with ranges from
    ``calibration_images`` training images. Batch norms are folded first. Biases stay in floating point. Quality is
    taken from the reference graph, which computes on the same integers; latency from compiled kernels, or from the
    reference graph where there is no C++ compiler. By torchao's PT2E and its quantizer for x86.

    Helps: size, about a quarter; latency on CPUs with VNNI, most at larger batches.
    Known not to help: very small networks at batch 1; networks with outlier activations. Compiling alone makes a
    network faster: set it beside the same network in a compiled runtime before crediting the integers.
    """

    calibration_images: Annotated[int, Ge(1)] = 256
    per_channel: bool = True

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Return the quantized network; raises ``Unsupported`` or ``NoEffect``."""
        return quantize(model, context.calibration(self.calibration_images), per_channel=self.per_channel)


TECHNIQUES = (QuantizePtq,)
