"""Low-rank factors of a matrix, and the replacement of layers by their factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cnnbench.errors import NoEffect, Unsupported
from cnnbench.lazy import nn, torch
from cnnbench_plugins.compressor._changeable import check_changeable

if TYPE_CHECKING:
    from collections.abc import Callable

Of = Literal["rank", "energy"]


def rank_of(singular: torch.Tensor, share: float, of: Of) -> int:
    """Number of singular values to keep.

    Args:
        singular: in falling order.
        share: with ``of="rank"`` the rank is round(share * len(singular)), at least 1; with ``of="energy"`` it is the
            smallest whose squares sum to ``share`` of the total.
        of: what the share is of.
    """
    if of == "rank":
        return max(1, round(share * len(singular)))
    reached = (singular**2).cumsum(0)
    # A share of 1 means all but rounding noise.
    return min(len(singular), int((reached < share * reached[-1] * (1 - 1e-12)).sum()) + 1)


def thin_svd(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``U`` [m, k], ``S`` [k] falling and ``V^T`` [k, n] of a matrix [m, n], k = min(m, n)."""
    if matrix.shape[0] >= matrix.shape[1]:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        return u, s, vh
    # LAPACK takes several times as long for a wide matrix as for its transpose.
    v, s, uh = torch.linalg.svd(matrix.T, full_matrices=False)
    return uh.T, s, v.T


def split(matrix: torch.Tensor, share: float, of: Of) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors of the best approximation of a matrix in the Frobenius norm (Eckart & Young 1936).

    Args:
        matrix: [m, n].
        share: how many singular values to keep, see ``rank_of``.
        of: what the share is of.

    Returns:
        ``left`` [m, r] and ``right`` [r, n] with ``left @ right`` close to ``matrix``; each carries the square root of
        the singular values, so that fine-tuning starts balanced.
    """
    u, s, vh = thin_svd(matrix.detach().double())
    rank = rank_of(s, share, of)
    root = s[:rank].sqrt()
    return (u[:, :rank] * root).to(matrix), (root[:, None] * vh[:rank]).to(matrix)


def pair(value: tuple[int, ...]) -> tuple[int, int]:
    """A convolution's stride or dilation, typed as the pair that it is."""
    return value[0], value[1]


def padding_of(value: str | tuple[int, ...]) -> str | tuple[int, int]:
    """A convolution's padding, likewise."""
    return value if isinstance(value, str) else pair(value)


def sequence(original: nn.Module, *parts: tuple[nn.Linear | nn.Conv2d, torch.Tensor]) -> nn.Sequential:
    """Layers with the given weights, one behind the other, in place of ``original``, whose bias the last one gets."""
    for layer, weight in parts:
        layer.weight = nn.Parameter(weight.contiguous())
    if isinstance(original.bias, torch.Tensor):
        parts[-1][0].bias = nn.Parameter(original.bias.detach().clone())
    return nn.Sequential(*(layer for layer, _ in parts)).train(original.training)


def spatial_kernel(module: nn.Module) -> bool:
    """Whether a module is an ungrouped convolution with a kernel of more than one row and column.

    Exact types here and in the like: a subclass may use its weight in ways that several layers can't stand in for.
    """
    return type(module) is nn.Conv2d and min(module.kernel_size) > 1 and module.groups == 1


def factorize(model: nn.Module, example: torch.Tensor, make: Callable[[nn.Module], nn.Module | None]) -> int:
    """Replace each layer for which ``make`` returns factors with fewer parameters; the others stay.

    Args:
        model: changed in place.
        example: one model input [1, C, H, W].
        make: from a module to its factors, or None where it is not of the kind.

    Returns:
        Number of layers replaced.

    Raises:
        NoEffect: no layer would have become smaller, or there is none of the kind.
        Unsupported: a module reads the weight of a layer inside it, which factors don't have; or an int8 graph came.
    """
    check_changeable(model)
    # Each layer once, however many places hold it: a shared layer stays shared.
    with torch.random.fork_rng(devices=[]):  # new layers draw weights, which the factors take the place of
        made = {child: make(child) for child in model.modules() if child is not model}
    candidates = {child: factors for child, factors in made.items() if factors is not None}
    smaller = {child: factors for child, factors in candidates.items() if _size(factors) < _size(child)}
    if not smaller:
        reason = f"the rank makes none of {len(candidates)} layers smaller" if candidates else "there is no such layer"
        raise NoEffect(f"factorized nothing: {reason}")
    for name, child in list(model.named_modules(remove_duplicate=False)):
        if child in smaller:
            model.set_submodule(name, smaller[child])
    try:
        with torch.no_grad():
            model.eval()(example)
    except (AttributeError, RuntimeError, TypeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise Unsupported(f"{type(model).__name__} no longer runs with factorized layers: {reason}") from error
    return len(smaller)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
