"""Canonical polyadic factorization: a k x k convolution as 1 x 1, k x 1 and 1 x k by channel, and 1 x 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

from annotated_types import Ge, Gt, Lt

from cnnbench import technique
from cnnbench.lazy import nn, torch
from cnnbench_plugins.compressor._factors import factorize, padding_of, pair, sequence, spatial_kernel, thin_svd
from cnnbench_plugins.compressor._finetune import finetune

if TYPE_CHECKING:
    from cnnbench.slots import CompressionContext


def cp_als(
    tensor: torch.Tensor, rank: int, generator: torch.Generator, sweeps: int = 20, tolerance: float = 1e-5
) -> list[torch.Tensor]:
    """Canonical polyadic decomposition by alternating least squares.

    Starts from the leading left singular vectors of each unfolding (higher-order SVD), and normal draws for the
    columns that a mode is too short to give.

    Args:
        tensor: of four modes, [n, c, h, w].
        rank: number R of rank-one terms.
        generator: CPU generator for the draws.
        sweeps: at most so many updates of every factor ...
        tolerance: ... or until a sweep lowers the relative squared error by less than this.

    Returns:
        One factor a mode, [n, R], [c, R], [h, R], [w, R], double; the tensor is close to the sum over r of the outer
        products of their r-th columns, over which each term's norm is spread evenly.
    """
    target = tensor.detach().double()
    a, b, y, x = (_start(target.movedim(mode, 0).flatten(1), rank, generator) for mode in range(4))
    unfolded = target.flatten(1)
    total, last = max(float((target**2).sum()), 1e-300), float("inf")
    for _ in range(sweeps):
        a = _unit(_solve(unfolded @ torch.einsum("cr,hr,wr->chwr", b, y, x).flatten(0, 2), b, y, x))
        # What the other three updates share, and by far their largest part.
        seen = (unfolded.T @ a).view(*target.shape[1:], rank)
        b = _unit(_solve(torch.einsum("chwr,hr,wr->cr", seen, y, x), a, y, x))
        y = _unit(_solve(torch.einsum("chwr,cr,wr->hr", seen, b, x), a, b, x))
        projected = torch.einsum("chwr,cr,hr->wr", seen, b, y)
        x = _solve(projected, a, b, y)
        # |T - T'|^2 = |T|^2 - 2 <T, T'> + |T'|^2
        norm = float((_gram(a, b, y) * (x.T @ x)).sum())
        error = (total - 2 * float((projected * x).sum()) + norm) / total
        if last - error < tolerance:
            break
        last = error
    norms = torch.stack([factor.norm(dim=0) for factor in (a, b, y, x)])
    each = norms.prod(0) ** 0.25
    return [_unit(factor) * each for factor in (a, b, y, x)]


def _unit(factor: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(factor, dim=0)
    return factor / norms.clamp_min(1e-30)


def _gram(*factors: torch.Tensor) -> torch.Tensor:
    return torch.stack([factor.T @ factor for factor in factors]).prod(0)


def _solve(projected: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    """The factor of least squared error, given the unfolding times the other factors' Khatri-Rao product, [size, R]."""
    gram = _gram(*others)
    # Terms that grow alike make the Gram matrix singular: a tiny ridge takes the smallest solution.
    gram.diagonal().add_(1e-9 * gram.diagonal().mean().clamp_min(1e-30))
    solved: torch.Tensor = torch.linalg.solve(gram, projected, left=False)
    return solved


def _start(unfolded: torch.Tensor, rank: int, generator: torch.Generator) -> torch.Tensor:
    left = thin_svd(unfolded)[0][:, :rank]
    drawn = torch.randn(len(unfolded), rank - left.shape[1], generator=generator, dtype=left.dtype).to(left.device)
    return torch.cat([left, drawn / drawn.norm(dim=0)], dim=1)


def cp_rank(layer: nn.Conv2d, share: float) -> int:
    """The largest rank whose factors hold no more than ``share`` of the layer's weights, at least 1."""
    return max(1, int(share * layer.weight.numel() / sum(layer.weight.shape)))


def factorize_cp(layer: nn.Conv2d, rank: int, generator: torch.Generator) -> nn.Sequential:
    """1x1 convolution C -> R, kh x 1 and 1 x kw convolutions of each channel by itself, 1x1 convolution R -> N."""
    outputs, inputs, vertical, horizontal = (
        factor.to(layer.weight) for factor in cp_als(layer.weight, rank, generator)
    )
    (stride_y, stride_x), (dilation_y, dilation_x) = pair(layer.stride), pair(layer.dilation)
    padding = padding_of(layer.padding)
    padding_y, padding_x = (padding, padding) if isinstance(padding, str) else ((padding[0], 0), (0, padding[1]))
    narrow = nn.Conv2d(layer.in_channels, rank, 1, bias=False)
    rows = nn.Conv2d(
        rank,
        rank,
        (layer.kernel_size[0], 1),
        stride=(stride_y, 1),
        padding=padding_y,
        dilation=(dilation_y, 1),
        groups=rank,
        padding_mode=layer.padding_mode,
        bias=False,
    )
    columns = nn.Conv2d(
        rank,
        rank,
        (1, layer.kernel_size[1]),
        stride=(1, stride_x),
        padding=padding_x,
        dilation=(1, dilation_x),
        groups=rank,
        padding_mode=layer.padding_mode,
        bias=False,
    )
    widen = nn.Conv2d(rank, layer.out_channels, 1, bias=layer.bias is not None)
    return sequence(
        layer,
        (narrow, inputs.T[:, :, None, None]),
        (rows, vertical.T[:, None, :, None]),
        (columns, horizontal.T[:, None, None, :]),
        (widen, outputs[:, :, None, None]),
    )


@technique("compressor", "cp")
class Cp:
    """Replaces each k x k convolution by four cheap ones, a sum of rank-one filters, then fine-tunes.

    Lebedev et al. 2015 (Speeding-up Convolutional Neural Networks Using Fine-tuned CP-Decomposition, section 3). The
    weight [N, C, kh, kw] is approximated by the sum over r = 1..R of a_r b_r y_r x_r (outer products), fitted by
    alternating least squares from the higher-order SVD; it becomes a 1x1 convolution C -> R, kh x 1 and 1 x kw
    convolutions of each of the R channels by itself, and a 1x1 one R -> N. Parameters fall from N*C*kh*kw to
    R * (N + C + kh + kw). A tensor's rank has no spectrum to read it off, so ``share`` is that of the layer's weights
    that stay: R is the largest with R * (N + C + kh + kw) <= share * N*C*kh*kw. Exact once R reaches the tensor's rank,
    which a share below 1 seldom allows. A layer that one term would make larger, and grouped convolutions, are left
    alone. Default share: R near the layer's width, where the paper's lossless layers are. ``epochs`` and
    ``learning_rate`` as in ``svd``; with ``epochs = 0`` batch-norm statistics alone are recomputed.

    Helps: FLOPs, most of all factorizations at the same R.
    Known not to help: without fine-tuning; with many layers at once and a high learning rate, as terms that nearly
    cancel make training unstable (section 4 of the paper); latency, where four kernel launches, two of them depthwise,
    cost more than the multiplications saved.
    """

    share: Annotated[float, Gt(0), Lt(1)] = 0.25
    epochs: Annotated[int, Ge(0)] = 2
    learning_rate: Annotated[float, Gt(0)] = 0.01

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Factorize in place; raises ``NoEffect`` where no layer becomes smaller, or ``Unsupported``."""

        def make(module: nn.Module) -> nn.Module | None:
            if not spatial_kernel(module):
                return None
            layer = cast("nn.Conv2d", module)
            return factorize_cp(layer, cp_rank(layer, self.share), context.generator)

        factorize(model, context.example, make)
        finetune(model, context, self.epochs, self.learning_rate)
        return model


TECHNIQUES = (Cp,)
