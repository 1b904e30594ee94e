"""Designs of experiments over axes: which combinations of levels become the baseline and the arms.

Nothing but index arithmetic: an axis is its number of levels, a cell holds the index of each axis's level, and the
first level of an axis is its reference.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["one-at-a-time", "leave-one-out", "factorial", "cumulative"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Cell = tuple[int, ...]


def count(kind: Kind, sizes: Sequence[int]) -> int:
    """Number of arms beside the baseline, without listing them."""
    if kind == "factorial":
        return math.prod(sizes) - 1
    if kind == "leave-one-out":
        return len(sizes)
    return sum(size - 1 for size in sizes)


def cells(kind: Kind, sizes: Sequence[int]) -> tuple[Cell, list[Cell]]:
    """The baseline's cell and the arms' cells.

    ``one-at-a-time``: from all first levels, each other level of each axis alone. ``factorial``: every combination, the
    first axis varying slowest. ``cumulative``: axis by axis and level by level, each arm one step further than the arm
    before. ``leave-one-out``: from all last levels, each axis back at its first.

    Args:
        kind: the design.
        sizes: number of levels of each axis, at least 2.
    """
    first: Cell = (0,) * len(sizes)
    if kind == "factorial":
        return first, [cell for cell in itertools.product(*map(range, sizes)) if cell != first]
    if kind == "leave-one-out":
        last = tuple(size - 1 for size in sizes)
        return last, [_at(last, axis, 0) for axis in range(len(sizes))]
    arms: list[Cell] = []
    cell = first
    for axis, size in enumerate(sizes):
        for level in range(1, size):
            cell = _at(cell if kind == "cumulative" else first, axis, level)
            arms.append(cell)
    return first, arms


def _at(cell: Cell, axis: int, level: int) -> Cell:
    return (*cell[:axis], level, *cell[axis + 1 :])
