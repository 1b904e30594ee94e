"""From a trained network to one with simulated formats: insert, calibrate, train, freeze."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cnnbench.errors import NoEffect
from cnnbench.slots import Observer
from cnnbench.surgery import replace_modules
from cnnbench_plugins.compressor._fake_layers import QuantizedLayer, UniformInput, UniformWeight
from cnnbench_plugins.compressor._simulated import Formats, Simulated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnnbench.slots import CompressionContext
    from cnnbench.types import Progress

_CHUNK = 64  # images a calibration pass, to bound memory
_SAMPLE = 8192  # values kept of each layer's inputs and pass

Quantizers = tuple[nn.Module, nn.Module | None]
"""Of a layer's weight and of its input."""


def quantizable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and linear layers by name; what a layer of attention reads past its ``forward`` is left out."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)
        and not isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)
    }


def layers_in_order(model: nn.Module, example: torch.Tensor) -> list[nn.Module]:
    """Convolutions and linear layers that run, in the order of their first call.

    Raises:
        NoEffect: there is none.
    """
    ran: dict[nn.Module, None] = {}

    def note(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
        ran[module] = None

    hooks = [layer.register_forward_hook(note) for layer in quantizable_layers(model).values()]
    try:
        with torch.no_grad():
            model.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise NoEffect("quantized nothing: the model has no convolution or linear layer")
    return list(ran)


def insert(model: nn.Module, quantizers: Mapping[nn.Module, Quantizers]) -> list[QuantizedLayer]:
    """Put quantizers around layers, in place; a layer that is used in several places has one pair for all."""
    replace_modules(model, lambda m: m in quantizers, lambda m: QuantizedLayer(m, *quantizers[m]))
    return [module for module in model.modules() if isinstance(module, QuantizedLayer) and module.layer in quantizers]


def calibrate(model: nn.Module, layers: list[QuantizedLayer], images: torch.Tensor) -> None:
    """Choose the ranges of weights, and those of inputs from what the layers see of ``images`` [n, C, H, W].

    Activations are those of the network as it is: in floating point before the first calibration, with all other
    quantizers at work in a later one.
    """
    seen: dict[QuantizedLayer, list[torch.Tensor]] = {layer: [] for layer in layers}

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(module, QuantizedLayer)
        values = inputs[0].detach().reshape(-1)
        # An odd stride doesn't fall into step with rows of even width.
        sample = values[:: max(1, len(values) // _SAMPLE) | 1]
        seen[module].append(torch.cat([sample, values.amin()[None], values.amax()[None]]))

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    weights = [layer.weight_quantizer for layer in layers]
    try:
        with torch.no_grad():
            model.eval()
            for layer, quantizer in zip(layers, weights, strict=True):
                if isinstance(quantizer, UniformWeight) and quantizer.scale is None:
                    layer.weight_quantizer = None
            for chunk in torch.split(images, _CHUNK):
                model(chunk)
    finally:
        for hook in hooks:
            hook.remove()
        for layer, quantizer in zip(layers, weights, strict=True):
            layer.weight_quantizer = quantizer
    for layer in layers:
        if isinstance(layer.weight_quantizer, UniformWeight):
            layer.weight_quantizer.choose(layer.layer.get_parameter("weight"))
        if isinstance(layer.input_quantizer, UniformInput):
            layer.input_quantizer.choose(torch.cat(seen[layer]))


class Recalibrate(Observer):
    """Chooses ranges anew between epochs: weights and activations move as they are trained."""

    def __init__(self, layers: list[QuantizedLayer], images: torch.Tensor) -> None:
        self._layers = layers
        self._images = images

    def after_epoch(self, model: nn.Module, progress: Progress) -> bool:
        """Calibrate again, except after the last epoch, whose ranges the weights are fitted to."""
        if progress.epoch + 1 < progress.epochs:
            calibrate(model, self._layers, self._images)
        return False


class HoldZeros(Observer):
    """Keeps weights at 0 that are 0 at the start: what was pruned stays pruned."""

    def __init__(self, layers: list[nn.Module]) -> None:
        weights = [layer.get_parameter("weight") for layer in layers]
        self._zeros = [(weight, weight.detach() == 0) for weight in weights if bool((weight == 0).any())]

    def after_step(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Set them back."""
        self.enforce()

    def enforce(self) -> None:
        """Set them back."""
        with torch.no_grad():
            for weight, zero in self._zeros:
                weight.masked_fill_(zero, 0.0)


def fine_tune(
    model: nn.Module,
    layers: list[QuantizedLayer],
    context: CompressionContext,
    epochs: int,
    learning_rate: float,
    *observers: Observer,
) -> None:
    """Train with the quantizers at work, and with what was pruned held at zero."""
    if epochs:
        held = HoldZeros([layer.layer for layer in layers])
        context.train(model, epochs=epochs, learning_rate=learning_rate, observers=(*observers, held))
        held.enforce()


def freeze(model: nn.Module, layers: list[QuantizedLayer], what: str) -> Simulated:
    """Put the quantized weights in place of those that were trained, and drop what is then no longer needed.

    Args:
        model: holds the layers; changed in place.
        layers: as ``insert`` gave them.
        what: names the format, as in ``4-bit weights are``.
    """
    stored = {}
    for wrapped in layers:
        quantizer = wrapped.weight_quantizer
        assert quantizer is not None
        weight = wrapped.layer.get_parameter("weight")
        with torch.no_grad():
            weight.copy_(quantizer(weight))
        stored[wrapped.layer] = quantizer.stored(weight)  # type: ignore[operator] # each weight quantizer has it
        wrapped.weight_quantizer = None
    replace_modules(
        model,
        lambda m: isinstance(m, QuantizedLayer) and m.input_quantizer is None,
        lambda m: m.get_submodule("layer"),
    )
    formats: Formats = {name: stored[module] for name, module in model.named_modules() if module in stored}
    return Simulated(model.eval(), formats, what)


def uniform_quantizers(
    model: nn.Module, example: torch.Tensor, bits: int, edge_bits: int, *, per_channel: bool
) -> dict[nn.Module, Quantizers]:
    """Weight and input quantizers for every layer that runs; the first and the last layer have ``edge_bits``.

    Raises:
        NoEffect: no layer would have ``bits``.
    """
    layers = layers_in_order(model, example)
    edges = {layers[0], layers[-1]}
    if bits != edge_bits and len(layers) == len(edges):
        raise NoEffect(f"quantized nothing to {bits} bits: all {len(layers)} layers are first or last; set edge_bits")
    return {
        layer: (UniformWeight(width, per_channel=per_channel), UniformInput(width))
        for layer in layers
        for width in [edge_bits if layer in edges else bits]
    }
