"""Whether two results are the same, and where they differ if not."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn


def copied(value: Any) -> Any:
    """A copy that later changes in place do not reach; a generator's is its state."""
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: copied(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [copied(one) for one in value]
    return copy.deepcopy(value)


def difference(one: Any, other: Any, *, within: float = 0.0, at: str = "") -> str | None:
    """Where two values differ, in words; None where they are the same.

    Args:
        one: tensors, modules, plain values, in mappings and sequences.
        other: likewise.
        within: numbers of tensors may differ by this much, relative to the largest.
        at: what is compared, for people.
    """
    at = at or "the result"
    if isinstance(one, torch.Generator):
        one = one.get_state()
    if isinstance(other, torch.Generator):
        other = other.get_state()
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return _of_tensors(one, other, within, at)
    if isinstance(one, nn.Module) and isinstance(other, nn.Module):
        if str(one) != str(other):
            return f"{at} has other modules"
        return difference(_state(one), _state(other), within=within, at=at)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if one.keys() != other.keys():
            return f"{at} has {sorted(map(str, one.keys() ^ other.keys()))[0]!r} on one side alone"
        pairs = [(f"{at}, {key}", value, other[key]) for key, value in one.items()]
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return f"{at} has {len(one)} parts against {len(other)}"
        pairs = [(f"{at}, part {i}", a, b) for i, (a, b) in enumerate(zip(one, other, strict=True))]
    elif is_dataclass(one) and type(one) is type(other):
        pairs = [(f"{at}, {f.name}", getattr(one, f.name), getattr(other, f.name)) for f in fields(one)]
    else:
        same = one is other or (type(one) is type(other) and bool(one == other)) or (one != one and other != other)  # noqa: PLR0124 - not a number
        return None if same else f"{at} is {one!r:.60} against {other!r:.60}"
    return next((found for name, a, b in pairs if (found := difference(a, b, within=within, at=name))), None)


def _state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _of_tensors(one: torch.Tensor, other: torch.Tensor, within: float, at: str) -> str | None:
    if one.shape != other.shape:
        return f"{at} has shape {list(one.shape)} against {list(other.shape)}"
    if one.dtype != other.dtype:
        return f"{at} has type {one.dtype} against {other.dtype}"
    one, other = one.detach(), other.detach()
    if torch.equal(one, other) or one.numel() == 0:
        return None
    a, b = one.double(), other.double()
    largest = float(torch.nan_to_num((a - b).abs(), nan=float("inf")).max())
    scale = float(torch.nan_to_num(b.abs()).max())
    same_gaps = torch.equal(a.isnan(), b.isnan())
    if same_gaps and float(torch.nan_to_num((a - b).abs(), nan=0.0).max()) <= within * max(scale, 1e-6):
        return None
    return f"{at} differs by up to {largest:.3g} (largest value {scale:.3g})"
