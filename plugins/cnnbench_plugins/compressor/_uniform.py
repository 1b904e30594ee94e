"""Uniform quantization: integer levels, their scales, and the values that they stand for."""

from __future__ import annotations

import torch

_SHARES = 40
"""Clipping ranges that ``best_range`` tries: this many equal steps of the whole range."""
_BLOCK = 2**17
"""Values that ``best_range`` looks at together: so few stay in the processor's cache from one try to the next."""


def levels(bits: int, *, symmetric: bool) -> tuple[int, int]:
    """Lowest and highest integer: two's complement where symmetric, else 0 .. 2^bits - 1."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)


def range_to_scale(
    low: torch.Tensor, high: torch.Tensor, bits: int, *, symmetric: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point with which the levels span a range.

    Symmetric: s = 2 max(|low|, |high|) / (q_max - q_min), z = 0. Affine: the range is widened to hold 0, which thereby
    is a level itself; s = (high - low) / (q_max - q_min), z = q_min - round(low / s).

    Args:
        low: lowest values, any shape.
        high: highest values, of the same shape.
        bits: of the integers.
        symmetric: see above.

    Returns:
        Scales and zero points (whole numbers), both floating point and of the arguments' shape. An empty range has
        scale 1.
    """
    lowest, highest = levels(bits, symmetric=symmetric)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (torch.maximum(-low, high) * 2 if symmetric else high - low) / (highest - lowest)
    # Below the smallest normal number a quotient by the scale is no longer exact, or not even finite.
    scale = torch.where(scale < torch.finfo(scale.dtype).tiny, torch.ones_like(scale), scale)
    if symmetric:
        return scale, torch.zeros_like(scale)
    return scale, (lowest - (low / scale).round()).clamp(lowest, highest)


def quantized(
    values: torch.Tensor, scale: torch.Tensor | float, zero_point: torch.Tensor | float, bits: int, *, symmetric: bool
) -> torch.Tensor:
    """The values after quantization and back: s (clamp(round(x / s) + z) - z), halves rounded to the even integer.

    Args:
        values: floating point.
        scale: a number, or broadcasts against the values.
        zero_point: like the scale.
        bits: of the integers.
        symmetric: decides the integers' range.
    """
    lowest, highest = levels(bits, symmetric=symmetric)
    return (((values / scale).round() + zero_point).clamp(lowest, highest) - zero_point) * scale


def best_range(values: torch.Tensor, bits: int, *, symmetric: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point of least squared error, row by row.

    Tries the whole range and 39 shares of it: with few levels, clipping the largest values costs less than spacing
    the levels wide enough to reach them.

    Args:
        values: float [R, n]; each row has a scale of its own.
        bits: of the integers.
        symmetric: zero point 0.

    Returns:
        Scales and zero points, [R, 1].
    """
    blocks = torch.split(values, max(1, _BLOCK // max(1, values.shape[1])))
    scales, zero_points = zip(*(_best_range(block, bits, symmetric=symmetric) for block in blocks), strict=True)
    return torch.cat(scales), torch.cat(zero_points)


def _best_range(values: torch.Tensor, bits: int, *, symmetric: bool) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    scale, zero_point = range_to_scale(low, high, bits, symmetric=symmetric)
    error = _error(values, scale, zero_point, bits, symmetric=symmetric)
    for step in range(1, _SHARES):
        share = 1 - step / _SHARES
        tried = range_to_scale(low * share, high * share, bits, symmetric=symmetric)
        found = _error(values, *tried, bits, symmetric=symmetric)
        better = found < error
        error = torch.where(better, found, error)
        scale, zero_point = torch.where(better, tried[0], scale), torch.where(better, tried[1], zero_point)
    return scale, zero_point


def _error(
    values: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, bits: int, *, symmetric: bool
) -> torch.Tensor:
    lowest, highest = levels(bits, symmetric=symmetric)
    # As ``quantized``, without its new tensors: this is called a great many times.
    steps = (values / scale).round_().add_(zero_point).clamp_(lowest, highest).sub_(zero_point)
    return steps.mul_(scale).sub_(values).square_().sum(1, keepdim=True)
