"""Post-training quantization: integers in place of floating point, without retraining."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from cnnbench import Requirement, technique

if TYPE_CHECKING:
    from cnnbench.lazy import nn, torch
    from cnnbench.slots import CompressionContext
    from cnnbench_plugins.compressor._int8 import Int8Model


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
    from cnnbench_plugins.compressor._pt2e import check_platform, convert

    check_platform("quantize_ptq", calibration.device)
    quantizer = _quantizer(per_channel=per_channel)
    return convert(model, calibration, quantizer, "quantize_ptq", layers="convolution or linear layer")


def _quantizer(*, per_channel: bool) -> Any:
    from cnnbench_plugins.compressor._pt2e import has_vnni
    from cnnbench_plugins.compressor._quiet import quiet_quantizers

    with quiet_quantizers():
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    # Without VNNI, 8-bit products are summed in 16 bits and may saturate: activations then get 7 bits.
    config = x86.get_default_x86_inductor_quantization_config(reduce_range=not has_vnni())
    if not per_channel:
        from cnnbench_plugins.compressor._int8_observer import SharedScaleObserver

        observer = SharedScaleObserver.with_args(eps=2**-12)
        weight = dataclasses.replace(config.weight, observer_or_fake_quant_ctr=observer)
        config = dataclasses.replace(config, weight=weight)
    return x86.X86InductorQuantizer().set_global(config)


def simulate(
    model: nn.Module, calibration: torch.Tensor, bits: int, *, edge_bits: int = 8, per_channel: bool = True
) -> nn.Module:
    """Round weights and activations of convolutions and linear layers to values that few bits could hold, in place.

    Args:
        model: on any device.
        calibration: model inputs [n, C, H, W]; activation ranges are taken from them.
        bits: of a weight, and of an activation that enters a layer.
        edge_bits: the same for the first and the last layer that run.
        per_channel: one weight scale for each output channel, or one for the whole weight.

    Raises:
        NoEffect: no layer would have ``bits``.
        Unsupported: the model is itself one layer.
    """
    from cnnbench_plugins.compressor import _fake_flow as flow
    from cnnbench_plugins.compressor._simulated import plain_network

    network = plain_network(model)
    chosen = flow.uniform_quantizers(network, calibration[:1], bits, edge_bits, per_channel=per_channel)
    layers = flow.insert(network, chosen)
    flow.calibrate(network, layers, calibration)
    return flow.freeze(network, layers, f"{bits}-bit weights and activations are")


@technique(
    "compressor",
    "quantize_ptq",
    requires=(Requirement("torchao", "compress"),),
    waives={"train-and-eval": "a converted graph has inference behaviour alone: its train() does nothing"},
)
class QuantizePtq:
    """Quantizes weights and activations after training: int8 with kernels on x86 CPUs, fewer bits simulated.

    Jacob et al. 2018 (Quantization and Training of Neural Networks, section 2), post training as in Krishnamoorthi 2018
    (section 3): q = clamp(round(x / s) + z). Weights are symmetric with a scale s for each output channel (or one for
    the tensor); activations affine with one s and z each, ranges from ``calibration_images`` training images.

    ``bits = 8``: by torchao's PT2E and its quantizer for x86. Weights in -128..127, activations in 0..255 (0..127 on
    CPUs without VNNI). Batch norms are folded first; biases stay in floating point. Quality is taken from the reference
    graph, which computes on the same integers; latency from compiled kernels, or from the reference graph where there
    is no C++ compiler.

    ``bits`` 2 to 7: simulated (fake quantization), on any device. Weights and the inputs of each convolution and linear
    layer are rounded to the 2^bits levels and computed with in floating point; additions and norms are not quantized
    (a norm behind a convolution is only another scale for each channel). Ranges minimize the squared error over 40
    clipping thresholds (Nagel et al. 2021, A White Paper on Neural Network Quantization, section 3.1): with few levels
    the whole range is a poor choice. The first and last layer have ``edge_bits``, as is usual (Esser et al. 2020,
    Learned Step Size Quantization, section 3). Size is nominal, and no speed is claimed.

    Helps: size, about a quarter at 8 bits; latency on CPUs with VNNI, most at larger batches.
    Known not to help: very small networks at batch 1; networks with outlier activations; accuracy below 4 bits, for
    which see ``quantize_qat``. Compiling alone makes a network faster: set it beside the same network in a compiled
    runtime before crediting the integers.

    Attributes:
        per_channel: a scale for each output channel of a weight, rather than one for the tensor.
    """

    bits: Annotated[int, Ge(2), Le(8)] = 8
    calibration_images: Annotated[int, Ge(1)] = 256
    per_channel: bool = True
    edge_bits: Annotated[int, Ge(2), Le(8)] = 8

    def __post_init__(self) -> None:
        if self.bits == 8 and self.edge_bits != 8:
            raise ValueError(f"edge_bits belongs to bits below 8: expected 8, found {self.edge_bits}")

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Return the quantized network; raises ``Unsupported`` or ``NoEffect``."""
        images = context.calibration(self.calibration_images)
        if self.bits == 8:
            return quantize(model, images, per_channel=self.per_channel)
        return simulate(model, images, self.bits, edge_bits=self.edge_bits, per_channel=self.per_channel)


TECHNIQUES = (QuantizePtq,)
