"""Initializers that keep the signal's variance from layer to layer."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from cnnbench.lazy import nn, torch
from cnnbench.technique import technique
from cnnbench_plugins.initializer._weights import Layer, fill

Mode = Literal["fan_in", "fan_out"]


def xavier_std(layer: Layer, gain: float) -> float:
    """Standard deviation sqrt(2 / (fan_in + fan_out)) * gain."""
    return gain * math.sqrt(2 / (layer.fan_in + layer.fan_out))


def he_std(layer: Layer, mode: Mode, slope: float) -> float:
    """Standard deviation sqrt(2 / ((1 + slope^2) * fan))."""
    fan = layer.fan_in if mode == "fan_in" else layer.fan_out
    return math.sqrt(2 / ((1 + slope**2) * fan))


def normal(layer: Layer, std: float, generator: torch.Generator) -> torch.Tensor:
    """Normal draws of the layer's shape."""
    return torch.empty(layer.shape).normal_(0, std, generator=generator)


def uniform(layer: Layer, std: float, generator: torch.Generator) -> torch.Tensor:
    """Uniform draws of the layer's shape, of mean 0 and standard deviation ``std``."""
    bound = math.sqrt(3) * std
    return torch.empty(layer.shape).uniform_(-bound, bound, generator=generator)


def orthogonal(layer: Layer, gain: float, generator: torch.Generator) -> torch.Tensor:
    """A random (semi-)orthogonal matrix for each group, evenly distributed, in the layer's shape."""
    rows, columns = layer.shape[0] // layer.groups, math.prod(layer.shape[1:])
    blocks = []
    for _ in range(layer.groups):
        # The QR decomposition of a Gaussian matrix is evenly distributed once R's diagonal is positive (Mezzadri 2007).
        drawn = torch.empty(rows, columns).normal_(generator=generator)
        q, r = torch.linalg.qr(drawn if rows >= columns else drawn.T)
        q = q * r.diagonal().sign()
        blocks.append(q if rows >= columns else q.T)
    return gain * torch.cat(blocks).reshape(layer.shape)


@technique("initializer", "xavier_normal")
class XavierNormal:
    """Normal weights scaled to keep the variance of signals and gradients alike.

    Glorot & Bengio 2010 (AISTATS), section 4.2.1, equation 12: W ~ N(0, gain^2 * 2 / (fan_in + fan_out)), with fan_in =
    in_channels / groups * kH * kW and fan_out = out_channels / groups * kH * kW. Default gain 1, the paper's.

    Helps: tanh and other activations of slope 1 at 0.
    Known not to help: deep ReLU networks without normalization: half of the variance is lost at every layer.
    """

    gain: Annotated[float, Gt(0)] = 1.0

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        """Fill ``model`` in place."""
        fill(model, lambda layer: normal(layer, xavier_std(layer, self.gain), generator))


@technique("initializer", "xavier_uniform")
class XavierUniform:
    """Uniform weights scaled to keep the variance of signals and gradients alike.

    Glorot & Bengio 2010 (AISTATS), equation 16: W ~ U(-a, a) with a = gain * sqrt(6 / (fan_in + fan_out)); otherwise as
    ``xavier_normal``.

    Helps and known not to help: as ``xavier_normal``.
    """

    gain: Annotated[float, Gt(0)] = 1.0

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        """Fill ``model`` in place."""
        fill(model, lambda layer: uniform(layer, xavier_std(layer, self.gain), generator))


@technique("initializer", "he_normal")
class HeNormal:
    """Normal weights scaled to keep the variance of signals through ReLU layers.

    He et al. 2015, https://arxiv.org/abs/1502.01852, section 2.2: W ~ N(0, 2 / ((1 + slope^2) * fan)). ``slope`` is the
    activation's for negative inputs (0 for ReLU; 1 gives variance 1 / fan, LeCun's). Mode ``fan_in`` keeps the forward
    signal (equation 10), ``fan_out`` the gradient (equation 14); the paper finds either enough.

    Helps: deep ReLU networks without normalization.
    Known not to help: it matters little where norm layers rescale the signal anyway; residual branches without
    normalization need smaller weights still.

    Attributes:
        mode: which fan: ``fan_in`` keeps the variance forwards, ``fan_out`` backwards.
    """

    mode: Mode = "fan_in"
    slope: Annotated[float, Ge(0)] = 0.0

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        """Fill ``model`` in place."""
        fill(model, lambda layer: normal(layer, he_std(layer, self.mode, self.slope), generator))


@technique("initializer", "he_uniform")
class HeUniform:
    """Uniform weights scaled to keep the variance of signals through ReLU layers.

    He et al. 2015, https://arxiv.org/abs/1502.01852, section 2.2, with the uniform distribution of the same variance:
    W ~ U(-a, a) with a = sqrt(6 / ((1 + slope^2) * fan)); otherwise as ``he_normal``.

    Helps and known not to help: as ``he_normal``.

    Attributes:
        mode: which fan: ``fan_in`` keeps the variance forwards, ``fan_out`` backwards.
    """

    mode: Mode = "fan_in"
    slope: Annotated[float, Ge(0)] = 0.0

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        """Fill ``model`` in place."""
        fill(model, lambda layer: uniform(layer, he_std(layer, self.mode, self.slope), generator))


@technique("initializer", "lecun_normal")
class LecunNormal:
    """Normal weights of variance 1 / fan_in.

    LeCun et al. 1998 ("Efficient BackProp"), section 4.6: W ~ N(0, 1 / fan_in) with fan_in = in_channels / groups * kH
    * kW. It is what SELU's fixed point of mean 0 and variance 1 asks for (Klambauer et al. 2017, section 2).

    Helps: SELU networks, and linear ones.
    Known not to help: deep ReLU networks without normalization: half of the signal's power is lost at every layer.
    """

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        """Fill ``model`` in place."""
        # As He's for a slope of 1, where the activation loses nothing.
        fill(model, lambda layer: normal(layer, he_std(layer, "fan_in", slope=1.0), generator))


@technique("initializer", "orthogonal")
class Orthogonal:
    """Random weights whose filters are orthonormal.

    Saxe et al. 2014, https://arxiv.org/abs/1312.6120, section 3. The weight of each group as a matrix W
    [out / groups, in / groups * kH * kW] has W W^T = gain^2 I where it is wide, W^T W = gain^2 I where it is tall. Each
    group on its own, so that a depthwise layer's filters all have norm ``gain``. Default gain 1; ReLU networks without
    normalization take sqrt(2).

    Helps: deep networks without normalization: all directions of the signal keep their length.
    Known not to help: a matrix orthogonal over channels and kernel makes no isometry of the convolution itself (Xiao
    et al. 2018, https://arxiv.org/abs/1806.05393); with batch norm the gain is small.
    """

    gain: Annotated[float, Gt(0)] = 1.0

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        """Fill ``model`` in place."""
        fill(model, lambda layer: orthogonal(layer, self.gain, generator))


TECHNIQUES = (XavierNormal, XavierUniform, HeNormal, HeUniform, LecunNormal, Orthogonal)
