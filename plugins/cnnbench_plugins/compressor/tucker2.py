"""Tucker-2 factorization: a k x k convolution between two 1 x 1 convolutions that narrow and widen its channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

from annotated_types import Ge, Gt, Le

from cnnbench import technique
from cnnbench.lazy import nn, torch
from cnnbench_plugins.compressor._factors import (
    Of,
    factorize,
    padding_of,
    pair,
    rank_of,
    sequence,
    spatial_kernel,
    thin_svd,
)
from cnnbench_plugins.compressor._finetune import finetune

if TYPE_CHECKING:
    from cnnbench.slots import CompressionContext


def hosvd2(weight: torch.Tensor, share: float, of: Of) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tucker decomposition over the two channel modes by truncated higher-order SVD (De Lathauwer et al. 2000).

    Args:
        weight: [N, C, kh, kw].
        share: of each of the two unfoldings, [N, C kh kw] and [C, N kh kw], by itself; see ``rank_of``.
        of: what the share is of.

    Returns:
        ``outputs`` [N, s] and ``inputs`` [C, r] with orthonormal columns, and ``core`` [s, r, kh, kw], double: the
        weight is close to the core times ``outputs`` in its first and ``inputs`` in its second mode. The squared error
        is at most the sum of the squared singular values that the two unfoldings lost.
    """
    weight = weight.detach().double()
    bases = []
    for unfolded in (weight.flatten(1), weight.transpose(0, 1).flatten(1)):
        u, s, _ = thin_svd(unfolded)
        bases.append(u[:, : rank_of(s, share, of)])
    outputs, inputs = bases
    return outputs, torch.einsum("nchw,ns,cr->srhw", weight, outputs, inputs), inputs


def factorize_tucker2(layer: nn.Conv2d, share: float, of: Of) -> nn.Sequential:
    """A 1x1 convolution C -> r, the core's k x k convolution r -> s with stride and padding, a 1x1 one s -> N."""
    outputs, core, inputs = (factor.to(layer.weight) for factor in hosvd2(layer.weight, share, of))
    narrow = nn.Conv2d(layer.in_channels, inputs.shape[1], 1, bias=False)
    middle = nn.Conv2d(
        inputs.shape[1],
        outputs.shape[1],
        pair(layer.kernel_size),
        stride=pair(layer.stride),
        padding=padding_of(layer.padding),
        dilation=pair(layer.dilation),
        padding_mode=layer.padding_mode,
        bias=False,
    )
    widen = nn.Conv2d(outputs.shape[1], layer.out_channels, 1, bias=layer.bias is not None)
    return sequence(layer, (narrow, inputs.T[:, :, None, None]), (middle, core), (widen, outputs[:, :, None, None]))


@technique("compressor", "tucker2")
class Tucker2:
    """Replaces each k x k convolution by a 1 x 1, a smaller k x k and a 1 x 1 convolution, then fine-tunes.

    Kim et al. 2016 (Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications,
    section 3.1). The weight [N, C, kh, kw] = core [s, r, kh, kw] times U [N, s] and V [C, r] by truncated higher-order
    SVD of the two channel modes. Parameters fall from N*C*kh*kw to C*r + r*s*kh*kw + s*N, multiply-adds likewise with
    C*r counted on the input's pixels. Exact at full rank. ``share`` of ``energy`` keeps, of each of the two unfoldings,
    the fewest singular values whose squares sum to that share, so the weight's error is at most 2 * (1 - share) of its
    energy; of ``rank`` it keeps round(share * min) of each (the paper estimates ranks by variational Bayes). A layer
    that its ranks would make larger, and grouped convolutions, are left alone. ``epochs``, ``learning_rate`` and the
    share's default as in ``svd``; with ``epochs = 0`` batch-norm statistics alone are recomputed.

    Helps: wide layers, where r and s shrink the k x k core by their product.
    Known not to help: the first layer; narrow layers; latency of small layers, where three kernel launches cost more
    than the multiplications saved.
    """

    share: Annotated[float, Gt(0), Le(1)] = 0.8
    of: Of = "energy"
    epochs: Annotated[int, Ge(0)] = 2
    learning_rate: Annotated[float, Gt(0)] = 0.01

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Factorize in place; raises ``NoEffect`` where no layer becomes smaller, or ``Unsupported``."""

        def make(module: nn.Module) -> nn.Module | None:
            return factorize_tucker2(cast("nn.Conv2d", module), self.share, self.of) if spatial_kernel(module) else None

        factorize(model, context.example, make)
        finetune(model, context, self.epochs, self.learning_rate)
        return model


TECHNIQUES = (Tucker2,)
