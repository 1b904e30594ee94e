"""Dynamic quantization: int8 weights, activation ranges taken anew for every batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench import Requirement, technique
from cnnbench.lazy import torch

if TYPE_CHECKING:
    from cnnbench.lazy import nn
    from cnnbench.slots import CompressionContext
    from cnnbench_plugins.compressor._int8 import Int8Model


def quantize_linear(model: nn.Module, example: torch.Tensor) -> Int8Model:
    """Quantize linear layers to 8 bits, their inputs with ranges found at run time; all else stays as it is.

    Args:
        model: on CPU; not changed.
        example: model inputs [n, C, H, W], whose values don't matter.

    Returns:
        A module from model inputs of any batch size to logits.

    Raises:
        Unsupported: not an x86 CPU, or the model can't be exported or quantized.
        NoEffect: it has no linear layer.
    """
    from cnnbench_plugins.compressor._pt2e import check_platform, convert, has_vnni
    from cnnbench_plugins.compressor._quiet import quiet_quantizers

    with quiet_quantizers():
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    check_platform("quantize_dynamic", example.device)
    config = x86.get_default_x86_inductor_quantization_config(is_dynamic=True, reduce_range=not has_vnni())
    # Set for all operators, it would round the inputs of convolutions too, for which there are no such kernels.
    quantizer = x86.X86InductorQuantizer().set_module_type_qconfig(torch.nn.Linear, config)
    return convert(
        model, example, quantizer, "quantize_dynamic", layers="linear layer, and convolutions stay as they are"
    )


@technique(
    "compressor",
    "quantize_dynamic",
    requires=(Requirement("torchao", "compress"),),
    waives={
        "train-and-eval": "a converted graph has inference behaviour alone: its train() does nothing",
        "onnx": "ONNX has no operator that takes a scale from the batch as torchao does",
    },
)
class QuantizeDynamic:
    """Quantizes linear layers to int8 weights, and their inputs to int8 at run time; convolutions stay in fp32.

    Krishnamoorthi 2018 (Quantizing deep convolutional networks, section 3) with ranges taken from the batch itself:
    weights symmetric in -128..127 with a scale for each output, activations affine with one scale and zero point for
    the whole batch, so that outputs depend a little on what else is in it. No calibration. By torchao's PT2E and its
    quantizer for x86 CPUs, which knows no dynamic convolution. Quality is taken from the reference graph, latency from
    compiled kernels (see ``quantize_ptq``).

    Helps: networks whose weights sit in large linear layers (VGG's and AlexNet's classifiers).
    Known not to help: most CNNs, whose linear layer is the classifier alone; there ``quantize_ptq`` is what is meant.
    """

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Return the quantized network; raises ``Unsupported``, or ``NoEffect`` where no layer is linear."""
        return quantize_linear(model, context.calibration(2))


TECHNIQUES = (QuantizeDynamic,)
