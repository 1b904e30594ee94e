"""Weights rounded to powers of two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from cnnbench import technique
from cnnbench.errors import NoEffect
from cnnbench.lazy import nn, torch

if TYPE_CHECKING:
    from cnnbench.slots import CompressionContext


@technique("compressor", "template_name")
class Template:
    """Rounds each weight to a power of two or 0, after training.

    Miyashita et al. 2016, https://arxiv.org/abs/1603.01025, section 3: a weight w becomes sign(w) * 2^round(log2 |w|).
    Each layer has ``levels`` exponents, the largest of which is that of its largest weight; what is below the smallest
    becomes 0. Convolutions and linear layers [C_out, ...]; biases and norms stay. Batch norms then measure their
    statistics anew. Simulated: weights are kept as floats, and multiplications stay multiplications.

    Helps hardware that shifts bits in place of multiplying, and files that are deflated. Known not to help the latency
    of ordinary hardware, nor accuracy where large weights matter, which this rounds most coarsely.

    Attributes:
        levels: exponents in each layer.
    """

    # An option is a typed field; its constraints are checked when a suite is read, before anything runs.
    levels: Annotated[int, Ge(1), Le(64)] = 7

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """The compressed model. This one is a copy, which may be changed in place.

        Raises:
            NoEffect: there is no layer to round; the trial would be the baseline under another name.
        """
        layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        if not layers:
            raise NoEffect("rounded nothing: the model has no convolution or linear layer")
        with torch.no_grad():
            for layer in layers:
                layer.weight.copy_(powers_of_two(layer.weight, self.levels))
        context.recalibrate(model)
        return model


def powers_of_two(weight: torch.Tensor, levels: int) -> torch.Tensor:
    """The nearest powers of two, by ratio, of any shape; 0 below the ``levels`` largest exponents."""
    exponents = weight.abs().log2().round()  # -inf where the weight is 0
    smallest = exponents.max() - levels + 1
    return torch.where(exponents >= smallest, weight.sign() * exponents.exp2(), 0.0)
