"""Initializers that don't look at a layer's size."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt

from cnnbench.lazy import nn, torch
from cnnbench.technique import technique
from cnnbench_plugins.initializer._weights import fill


@technique("initializer", "default", no_op={}, waives={"effect": "it is what the model does by itself"})
class Default:
    """Leaves the weights as the model's own code made them.

    For torch's layers that is a uniform distribution of bound 1 / sqrt(fan-in), for weights and biases alike; model
    families such as torchvision's set their own. Weights are those of a fresh build, bit for bit.

    Helps: as the baseline against which the other initializers stand.
    Known not to help: deep networks of torch's bare layers without normalization: a variance of 1 / (3 fan-in) is a
    sixth of what ReLU needs.
    """

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        """Change nothing, draw nothing."""


@technique("initializer", "zeros")
class Zeros:
    """Sets every weight to 0.

    W = 0. All units of a layer then compute the same and receive the same gradient, so they stay identical for ever
    (Goodfellow et al. 2016, "Deep Learning", section 8.4): the control that shows why symmetry must be broken.

    Helps: nothing.
    Known not to help: anything deeper than one layer; only the last layer's bias learns, the class frequencies.
    """

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:  # noqa: ARG002 - nothing to draw
        """Fill ``model`` in place."""
        fill(model, lambda layer: torch.zeros(layer.shape))


@technique("initializer", "normal")
class Normal:
    """Draws weights from a normal distribution of one fixed spread.

    W ~ N(0, std^2). The default std 0.01 is that of Krizhevsky et al. 2012 (AlexNet, section 5).

    Helps: shallow networks, and deep ones whose norm layers undo the scale.
    Known not to help: deep networks without normalization: the signal shrinks or grows by a constant factor a layer.
    """

    std: Annotated[float, Gt(0)] = 0.01

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        """Fill ``model`` in place."""
        fill(model, lambda layer: torch.empty(layer.shape).normal_(0, self.std, generator=generator))


@technique("initializer", "uniform")
class Uniform:
    """Draws weights evenly from -bound to bound.

    W ~ U(-bound, bound), standard deviation bound / sqrt(3). The default 0.05 is Keras's.

    Helps and known not to help: as ``normal``.
    """

    bound: Annotated[float, Gt(0)] = 0.05

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        """Fill ``model`` in place."""
        fill(model, lambda layer: torch.empty(layer.shape).uniform_(-self.bound, self.bound, generator=generator))


@technique("initializer", "trunc_normal")
class TruncNormal:
    """Draws weights from a normal distribution cut off at two standard deviations.

    W ~ N(0, std^2) given |W| <= 2 std; what remains has a standard deviation of 0.880 std. The default std 0.02 is
    ConvNeXt's (Liu et al. 2022, https://arxiv.org/abs/2201.03545, appendix A).

    Helps: as ``normal``, without its rare large weights.
    Known not to help: as ``normal``.
    """

    std: Annotated[float, Gt(0)] = 0.02

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        """Fill ``model`` in place."""
        fill(model, lambda layer: trunc_normal(layer.shape, self.std, generator))


def trunc_normal(shape: tuple[int, ...], std: float, generator: torch.Generator) -> torch.Tensor:
    """Normal draws within two standard deviations, by the inverse of the distribution function."""
    # erf(2 / sqrt 2) = erf(sqrt 2) is the mass within two standard deviations.
    edge = torch.erf(torch.tensor(2.0, dtype=torch.float64).sqrt()).item()
    even = torch.empty(shape, dtype=torch.float64).uniform_(-edge, edge, generator=generator)
    return (torch.erfinv(even) * 2**0.5 * std).float()


TECHNIQUES = (Default, Zeros, Normal, Uniform, TruncNormal)
