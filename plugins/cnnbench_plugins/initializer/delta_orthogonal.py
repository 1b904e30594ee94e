"""Convolutions that start as an orthogonal matrix at each pixel."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt

from cnnbench.lazy import nn, torch
from cnnbench.technique import technique
from cnnbench_plugins.initializer._weights import Layer, fill
from cnnbench_plugins.initializer.scaled import orthogonal


def delta_orthogonal(layer: Layer, gain: float, generator: torch.Generator) -> torch.Tensor:
    """A random (semi-)orthogonal matrix for each group at the kernel's centre, zeros elsewhere."""
    weight = torch.zeros(layer.shape)
    centre = weight
    for size in reversed(layer.shape[2:]):
        centre = centre[..., (size - 1) // 2]
    centre[:] = orthogonal(layer._replace(shape=layer.shape[:2]), gain, generator)
    return weight


@technique("initializer", "delta_orthogonal")
class DeltaOrthogonal:
    """Orthogonal weights at the kernel's centre, zeros around it.

    Xiao et al. 2018, https://arxiv.org/abs/1806.05393, section 2.4 and algorithm 1: of a kernel [out, in / groups, kH,
    kW] only the centre tap W [out, in / groups] isn't 0, with W^T W = gain^2 I in each group, so that the convolution
    (stride 1) multiplies every signal's length by ``gain``. That needs at least as many outputs as inputs; where there
    are fewer, which the paper leaves out, W W^T = gain^2 I: the rows are orthonormal and part of the signal is lost.
    Kernels of even size have the tap before the middle. Linear layers are as with ``orthogonal``. Default gain 1; the
    paper's tanh networks take slightly more, ReLU networks sqrt(2).

    Helps: plain networks of hundreds or thousands of layers without normalization.
    Known not to help: kernels start as 1x1, so that a shallow network first sees no neighbourhood at all; with batch
    norm the gain is small.
    """

    gain: Annotated[float, Gt(0)] = 1.0

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        """Fill ``model`` in place."""
        fill(model, lambda layer: delta_orthogonal(layer, self.gain, generator))


TECHNIQUES = (DeltaOrthogonal,)
