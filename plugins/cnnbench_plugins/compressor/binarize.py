"""Weights of two or three values for each filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt

from cnnbench import technique
from cnnbench.errors import NoEffect, Unsupported
from cnnbench.lazy import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnbench.slots import CompressionContext


def _run(
    technique: Binary | Ternary,
    model: nn.Module,
    context: CompressionContext,
    make: Callable[[nn.Module], tuple[nn.Module, nn.Module | None]],
    what: str,
) -> nn.Module:
    from cnnbench_plugins.compressor import _fake_flow as flow
    from cnnbench_plugins.compressor._simulated import plain_network

    network = plain_network(model)
    layers = flow.layers_in_order(network, context.example)
    inner = layers[1:-1] if technique.keep_edges else layers
    if not inner:
        raise NoEffect(f"{what} nothing: all {len(layers)} layers are first or last; set keep_edges = false")
    wrapped = flow.insert(network, {layer: make(layer) for layer in inner})
    flow.fine_tune(network, wrapped, context, technique.epochs, technique.learning_rate)
    return flow.freeze(network, wrapped, f"{what} weights are")


@technique("compressor", "binary")
class Binary:
    """Makes the weights of each filter +a or -a, and with ``activations`` its inputs +1 or -1. Simulated.

    Rastegari et al. 2016 (XNOR-Net, section 3.1): the weight W of a filter with n entries becomes a sign(W) with
    a = sum |W| / n, the best such approximation in squared error; the sign of 0 is +. While fine-tuning, the gradient
    with respect to a sign(W) updates W, kept in floating point (algorithm 1). With ``activations`` (section 3.2) each
    such layer's input is batch-normalized and reduced to its sign, with gradient 1 where |x| <= 1 and 0 elsewhere; the
    norm is new, trained along, and needed, since behind a ReLU there is but one sign. The paper's scale for each place
    of the input (K), which it finds to matter little, is left out. First and last layer stay as they are, as there,
    unless ``keep_edges`` is off. Epochs and rate are no paper's: a few epochs from the trained network at SGD's usual
    0.1 for training, since signs turn over only if weights move. Size is nominal, one bit a weight and four bytes a
    filter; multiply-adds stay those of floating point, and no speed is claimed.

    Helps: size, up to 32 times, of wide networks.
    Known not to help: small networks, accuracy with binary activations above all; a network pruned before, whose zeros
    become +a.

    Attributes:
        learning_rate: base rate of the fine-tuning, in place of the recipe's.
    """

    activations: bool = False
    epochs: Annotated[int, Ge(0)] = 5
    learning_rate: Annotated[float, Gt(0)] = 0.1
    keep_edges: bool = True

    def __post_init__(self) -> None:
        if self.activations and not self.epochs:
            raise ValueError(
                "activations = true adds norms that must be trained: expected epochs of 1 or more, found 0"
            )

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Train in place and return the binary network; raises ``Unsupported`` or ``NoEffect``."""
        from cnnbench_plugins.compressor._fake_layers import SignInput, SignWeight

        def make(layer: nn.Module) -> tuple[nn.Module, nn.Module | None]:
            if not self.activations:
                return SignWeight(), None
            if isinstance(layer, nn.Linear):
                return SignWeight(), SignInput(layer.in_features, last=True)
            if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
                return SignWeight(), SignInput(layer.in_channels, last=False)
            raise Unsupported(f"binary activations know no {type(layer).__name__}")

        return _run(self, model, context, make, "binary")


@technique("compressor", "ternary")
class Ternary:
    """Makes the weights of each filter -a, 0 or +a. Simulated.

    Li et al. 2016 (Ternary Weight Networks, sections 2.2 and 2.3): with d = 0.7 mean |W| over the filter's n entries,
    weights of |w| <= d become 0, the others a sign(w), where a is the mean |w| of those above d; 0.7 stands for the
    best threshold of normally or uniformly distributed weights. While fine-tuning, the gradient with respect to these
    values updates W, kept in floating point. First and last layer stay as they are, as in ``binary``, unless
    ``keep_edges`` is off. Pruned weights stay 0. Epochs and rate as in ``binary``. Size is nominal, two bits a weight
    and four bytes a filter; no speed is claimed.

    Helps: size, up to 16 times, at less loss than ``binary``.
    Known not to help: small networks without fine-tuning.

    Attributes:
        epochs: of fine-tuning; 0 for none.
        learning_rate: base rate of the fine-tuning, in place of the recipe's.
    """

    epochs: Annotated[int, Ge(0)] = 5
    learning_rate: Annotated[float, Gt(0)] = 0.1
    keep_edges: bool = True

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Train in place and return the ternary network; raises ``Unsupported`` or ``NoEffect``."""
        from cnnbench_plugins.compressor._fake_layers import TernaryWeight

        return _run(self, model, context, lambda _: (TernaryWeight(), None), "ternary")


TECHNIQUES = (Binary, Ternary)
