"""Quantization-aware training: the network learns with the rounding that it will have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le

from cnnbench import technique

if TYPE_CHECKING:
    from cnnbench.lazy import nn
    from cnnbench.slots import CompressionContext


@technique("compressor", "quantize_qat")
class QuantizeQat:
    """Fine-tunes the network while its weights and activations are rounded to few bits. Simulated.

    Jacob et al. 2018 (Quantization and Training of Neural Networks, section 3) with the straight-through estimator of
    Bengio et al. 2013: forward, weights and the inputs of each convolution and linear layer are s (clamp(round(x / s) +
    z) - z); backward, rounding counts as the identity, activations outside of their range have gradient 0, and the
    update goes to weights kept in floating point. Formats, ``edge_bits`` and calibration as in ``quantize_ptq`` below 8
    bits, from which it starts; ranges are chosen anew after every epoch but the last. Norms are not folded: behind a
    convolution with a scale for each channel they are only another scale. Pruned weights stay 0. Fine-tuning at a tenth
    of SGD's usual rate, as in pruning. Size is nominal, and no speed is claimed, at 8 bits too: for int8 kernels use
    ``quantize_ptq``, which at 8 bits rarely loses anything.

    Helps: 2 to 4 bits, where rounding after training loses most of the accuracy.
    Known not to help: 8 bits. Set it beside the same epochs of plain fine-tuning before crediting the rounding.

    Attributes:
        learning_rate: base rate of the fine-tuning, in place of the recipe's.
        calibration_images: training images from which the first ranges are taken.
        per_channel: a scale for each output channel of a weight, rather than one for the tensor.
    """

    bits: Annotated[int, Ge(2), Le(8)] = 4
    epochs: Annotated[int, Ge(1)] = 5
    learning_rate: Annotated[float, Gt(0)] = 0.01
    calibration_images: Annotated[int, Ge(1)] = 256
    per_channel: bool = True
    edge_bits: Annotated[int, Ge(2), Le(8)] = 8

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Train in place and return the quantized network; raises ``Unsupported`` or ``NoEffect``."""
        from cnnbench_plugins.compressor import _fake_flow as flow
        from cnnbench_plugins.compressor._simulated import plain_network

        network = plain_network(model)
        images = context.calibration(self.calibration_images)
        chosen = flow.uniform_quantizers(
            network, context.example, self.bits, self.edge_bits, per_channel=self.per_channel
        )
        layers = flow.insert(network, chosen)
        flow.calibrate(network, layers, images)
        again = flow.Recalibrate(layers, images)
        flow.fine_tune(network, layers, context, self.epochs, self.learning_rate, again)
        return flow.freeze(network, layers, f"{self.bits}-bit weights and activations are")


TECHNIQUES = (QuantizeQat,)
