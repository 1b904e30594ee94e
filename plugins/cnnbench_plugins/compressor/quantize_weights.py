"""Weight-only quantization, simulated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from cnnbench import technique
from cnnbench.errors import NoEffect
from cnnbench.lazy import nn, torch

if TYPE_CHECKING:
    from cnnbench.slots import CompressionContext


def round_weights(model: nn.Module, bits: int, *, per_channel: bool = True, symmetric: bool = True) -> nn.Module:
    """Round the weights of convolutions and linear layers to values that few bits could hold, in place.

    Args:
        model: on any device.
        bits: of a weight.
        per_channel: one scale for each output channel, or one for the whole weight.
        symmetric: without zero points.

    Raises:
        NoEffect: no weight changed.
    """
    from cnnbench_plugins.compressor import _fake_flow as flow
    from cnnbench_plugins.compressor._fake_layers import UniformWeight
    from cnnbench_plugins.compressor._simulated import Simulated, plain_network

    network = plain_network(model)
    formats, changed = {}, False
    for name, layer in flow.quantizable_layers(network).items():
        weight = layer.get_parameter("weight")
        quantizer = UniformWeight(bits, per_channel=per_channel, symmetric=symmetric)
        with torch.no_grad():
            rounded = quantizer(weight)
            changed = changed or not torch.equal(rounded, weight)
            weight.copy_(rounded)
        formats[name] = quantizer.stored(weight)
    if not changed:
        raise NoEffect(f"quantized nothing: no convolution or linear layer, or none that {bits} bits can't hold")
    return Simulated(network, formats, f"{bits}-bit weights are")


@technique("compressor", "quantize_weights")
class QuantizeWeights:
    """Rounds weights to few bits, after training and without data; activations stay in floating point. Simulated.

    Krishnamoorthi 2018 (Quantizing deep convolutional networks, section 3.1.1). For convolutions and linear layers,
    w' = s (clamp(round(w / s) + z) - z) with ``bits``-bit integers: symmetric (z = 0, two's complement) or affine, with
    s and z for each output channel or one for the tensor. The range minimizes the squared error over 40 clipping
    thresholds (Nagel et al. 2021, A White Paper on Neural Network Quantization, section 3.1), the whole range among
    them. Zeros stay zeros. Biases and norms are not quantized. Size is nominal: bits of all weights, or of the
    nonzero ones with their places where a pruned weight is smaller so (Han et al. 2016), and four bytes for each scale,
    one for each zero point. Computation is in floating point: no speed is claimed.

    Helps: size; at 8 bits without loss, at 4 with per-channel scales nearly so.
    Known not to help: latency, here; accuracy at 2 bits, for which see ``quantize_qat``, ``ternary`` and ``binary``;
    depthwise networks with one scale for the tensor.

    Attributes:
        per_channel: a scale for each output channel, rather than one for the tensor.
    """

    bits: Annotated[int, Ge(2), Le(8)] = 8
    per_channel: bool = True
    symmetric: bool = True

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:  # noqa: ARG002
        """Round in place; raises ``NoEffect`` where nothing changes."""
        return round_weights(model, self.bits, per_channel=self.per_channel, symmetric=self.symmetric)


TECHNIQUES = (QuantizeWeights,)
