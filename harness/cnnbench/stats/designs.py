"""Contrasts of designed experiments: main effects, two-way interactions, and steps, each as two sides of one seed.

A cell holds the index of each axis's level. Every contrast is taken within a seed, over the cells of that seed, so that
what a seed does to all cells alike cancels; a paired test over seeds then decides. In a balanced design this is the
contrast of a repeated-measures analysis with its own error term (Maxwell & Delaney, Designing Experiments and Analyzing
Data, ch. 11 and 12), which needs no assumption that cells are equally noisy.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from cnnbench.design import Cell


@dataclass(frozen=True)
class Contrast:
    """A difference between two sets of cells.

    Attributes:
        axes: index of the axis of a main effect; of both axes of an interaction; empty for a step.
        levels: the level of each of these axes, which is seen from its first; empty for a step.
        plus, minus: the cells of both sides, equally many.
        share: what each cell counts: 1 / number of combinations of the other axes' levels.
    """

    axes: tuple[int, ...]
    levels: tuple[int, ...]
    plus: tuple[Cell, ...]
    minus: tuple[Cell, ...]
    share: float

    def sides(self, cells: Mapping[Cell, ArrayLike]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Both sides of every seed; their difference is the contrast.

        Args:
            cells: of each cell one value a seed, [n], in one order of seeds; nan where a seed has none. A cell that is
                not among them has none.

        Returns:
            Two arrays [n]; nan in both where a seed lacks any cell of the contrast.
        """
        lacking = np.full(max((np.size(values) for values in cells.values()), default=0), np.nan)

        def side(names: Sequence[Cell]) -> NDArray[np.float64]:
            stacked = np.stack([np.asarray(cells.get(cell, lacking), dtype=np.float64) for cell in names])
            total: NDArray[np.float64] = self.share * stacked.sum(axis=0)
            return total

        plus, minus = side(self.plus), side(self.minus)
        lacks = ~(np.isfinite(plus) & np.isfinite(minus))
        plus[lacks] = minus[lacks] = np.nan
        return plus, minus


def main_effects(sizes: Sequence[int]) -> list[Contrast]:
    """Each level of each axis against the axis's first, averaged over all levels of the other axes.

    Args:
        sizes: number of levels of each axis of a full factorial design.
    """
    return [_contrast(sizes, (axis,), (level,)) for axis, size in enumerate(sizes) for level in range(1, size)]


def interactions(sizes: Sequence[int]) -> list[Contrast]:
    """Differences of differences: how much more one change gains together with another change than without it.

    For each pair of axes and each pair of their levels but the first ones, averaged over the levels of the other axes.
    Takes what ``main_effects`` does.
    """
    return [
        _contrast(sizes, pair, levels)
        for pair in itertools.combinations(range(len(sizes)), 2)
        for levels in itertools.product(*(range(1, sizes[axis]) for axis in pair))
    ]


def steps(order: Sequence[Cell]) -> list[Contrast]:
    """Each cell against the one before it.

    Args:
        order: the cells of a cumulative design, the baseline's first.
    """
    return [Contrast((), (), (after,), (before,), 1.0) for before, after in itertools.pairwise(order)]


def _contrast(sizes: Sequence[int], axes: tuple[int, ...], levels: tuple[int, ...]) -> Contrast:
    chosen = [(0, level) for level in levels]
    others = [range(size) if axis not in axes else (0,) for axis, size in enumerate(sizes)]
    sides: tuple[list[Cell], list[Cell]] = ([], [])
    for rest in itertools.product(*others):
        for picked in itertools.product((0, 1), repeat=len(axes)):
            cell = list(rest)
            for axis, levels_of, which in zip(axes, chosen, picked, strict=True):
                cell[axis] = levels_of[which]
            # An odd number of changes left out turns the sign: of (a, b) that is a without b, and b without a.
            sides[(len(axes) - sum(picked)) % 2].append(tuple(cell))
    plus, minus = sides
    return Contrast(axes, levels, tuple(plus), tuple(minus), 1 / math.prod(map(len, others)))
