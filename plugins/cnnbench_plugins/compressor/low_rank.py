"""Low-rank factorization: one layer becomes two thinner ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

from annotated_types import Ge, Gt, Le

from cnnbench import technique
from cnnbench.lazy import nn
from cnnbench_plugins.compressor._factors import Of, factorize, padding_of, pair, sequence, spatial_kernel, split
from cnnbench_plugins.compressor._finetune import finetune

if TYPE_CHECKING:
    from cnnbench.slots import CompressionContext


def factorize_linear(layer: nn.Linear, share: float, of: Of) -> nn.Sequential:
    """Linear(in, r, no bias) then Linear(r, out)."""
    left, right = split(layer.weight, share, of)
    rank = len(right)
    first = nn.Linear(layer.in_features, rank, bias=False)
    second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
    return sequence(layer, (first, right), (second, left))


def factorize_pointwise(layer: nn.Conv2d, share: float, of: Of) -> nn.Sequential:
    """A 1x1 convolution to r channels, with the stride, then a 1x1 convolution to the outputs."""
    left, right = split(layer.weight.flatten(1), share, of)
    rank = len(right)
    first = nn.Conv2d(
        layer.in_channels,
        rank,
        1,
        stride=pair(layer.stride),
        padding=padding_of(layer.padding),
        padding_mode=layer.padding_mode,
        bias=False,
    )
    second = nn.Conv2d(rank, layer.out_channels, 1, bias=layer.bias is not None)
    return sequence(layer, (first, right[:, :, None, None]), (second, left[:, :, None, None]))


def factorize_spatial(layer: nn.Conv2d, share: float, of: Of) -> nn.Sequential:
    """A kh x 1 convolution to r channels, then a 1 x kw convolution to the outputs.

    The weight [N, C, kh, kw] as a matrix [C kh, N kw] factors into vertical filters [r, C, kh, 1] and horizontal
    filters [N, r, 1, kw].
    """
    outputs, inputs, height, width = layer.weight.shape
    matrix = layer.weight.permute(1, 2, 0, 3).reshape(inputs * height, outputs * width)
    left, right = split(matrix, share, of)
    rank = len(right)
    (stride_y, stride_x), (dilation_y, dilation_x) = pair(layer.stride), pair(layer.dilation)
    padding = padding_of(layer.padding)
    padding_y, padding_x = (padding, padding) if isinstance(padding, str) else ((padding[0], 0), (0, padding[1]))
    first = nn.Conv2d(
        inputs,
        rank,
        (height, 1),
        stride=(stride_y, 1),
        padding=padding_y,
        dilation=(dilation_y, 1),
        padding_mode=layer.padding_mode,
        bias=False,
    )
    second = nn.Conv2d(
        rank,
        outputs,
        (1, width),
        stride=(1, stride_x),
        padding=padding_x,
        dilation=(1, dilation_x),
        padding_mode=layer.padding_mode,
        bias=layer.bias is not None,
    )
    vertical = left.T.reshape(rank, inputs, height, 1)
    horizontal = right.reshape(rank, outputs, 1, width).transpose(0, 1)
    return sequence(layer, (first, vertical), (second, horizontal))


def _svd_factors(module: nn.Module, share: float, of: Of) -> nn.Module | None:
    if type(module) is nn.Linear:
        return factorize_linear(module, share, of)
    if type(module) is nn.Conv2d and module.kernel_size == (1, 1) and module.groups == 1:
        return factorize_pointwise(module, share, of)
    return None


def _spatial_factors(module: nn.Module, share: float, of: Of) -> nn.Module | None:
    return factorize_spatial(cast("nn.Conv2d", module), share, of) if spatial_kernel(module) else None


@technique("compressor", "svd")
class Svd:
    """Replaces linear layers and 1x1 convolutions by two of lower rank, then fine-tunes.

    Denton et al. 2014 (Exploiting Linear Structure, section 3.2.1). W [out, in] = U S V^T is cut to rank r: a layer
    in -> r without bias, then r -> out; parameters fall from in*out to r*(in + out). Exact at full rank. ``share`` of
    ``rank`` keeps round(share * min(in, out)) singular values, of ``energy`` the fewest whose squares sum to that share
    of the total, so that each layer gets the rank that its spectrum asks for. A layer that its rank would make larger
    is left alone. Default: 0.8 of the energy cost a small residual network nothing after two epochs of fine-tuning; at
    0.9 few of its layers became smaller. Fine-tuning at a tenth of SGD's usual rate, as in pruning; with ``epochs = 0``
    batch-norm statistics alone are recomputed.

    Helps: wide classifiers and bottleneck networks of 1x1 convolutions.
    Known not to help: small residual networks, whose weights sit in k x k convolutions (``spatial_svd``); latency of
    small layers, where one more kernel launch costs more than the multiplications saved.

    Attributes:
        learning_rate: base rate of the fine-tuning, in place of the recipe's.
    """

    share: Annotated[float, Gt(0), Le(1)] = 0.8
    of: Of = "energy"
    epochs: Annotated[int, Ge(0)] = 2
    learning_rate: Annotated[float, Gt(0)] = 0.01

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Factorize in place; raises ``NoEffect`` where no layer becomes smaller, or ``Unsupported``."""
        factorize(model, context.example, lambda module: _svd_factors(module, self.share, self.of))
        finetune(model, context, self.epochs, self.learning_rate)
        return model


@technique("compressor", "spatial_svd")
class SpatialSvd:
    """Replaces each k x k convolution by a k x 1 and a 1 x k convolution of lower rank, then fine-tunes.

    Jaderberg et al. 2014 (scheme 2), solved in closed form by SVD: the weight [N, C, kh, kw] as a matrix [C kh, N kw]
    is cut to rank r, giving r vertical filters over C channels and N horizontal filters over r. Parameters fall from
    N*C*kh*kw to r*(C*kh + N*kw). Exact at full rank, min(C kh, N kw). ``share``, ``of`` and their defaults as in
    ``svd``, and so is ``epochs = 0``. A layer that its rank would make larger is left alone, and so are grouped
    convolutions.

    Helps: 3 x 3 and larger kernels with many channels.
    Known not to help: the first layer, whose few channels leave few ranks to choose from (``of = "rank"`` can cripple
    it); latency of small layers, where two kernel launches cost more than the multiplications saved.

    Attributes:
        learning_rate: base rate of the fine-tuning, in place of the recipe's.
    """

    share: Annotated[float, Gt(0), Le(1)] = 0.8
    of: Of = "energy"
    epochs: Annotated[int, Ge(0)] = 2
    learning_rate: Annotated[float, Gt(0)] = 0.01

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Factorize in place; raises ``NoEffect`` where no layer becomes smaller, or ``Unsupported``."""
        factorize(model, context.example, lambda module: _spatial_factors(module, self.share, self.of))
        finetune(model, context, self.epochs, self.learning_rate)
        return model


TECHNIQUES = (Svd, SpatialSvd)
