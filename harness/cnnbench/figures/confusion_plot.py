"""Drawing confusion matrices and changes by class."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cnnbench.figures.canvas import Canvas, Key, breadth, folded, legend_rows, marked
from cnnbench.figures.limits import window
from cnnbench.figures.style import BLUE, EDGE, INK, LINE, MARKERS, RIGHT, SERIES, SHADE, SMALL, SOFT, VERMILLION
from cnnbench.numerals import number
from cnnbench.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnnbench.figures.confusion import ClassChange, Classes, Confusion, Matrix

_MOST_NUMBERS = 12
"""Of more classes the cells are too narrow for numbers."""
_CELL = 22.0
_HEAD = 26.0
_FOOT = 42.0
_FAINT = 0.05
"""Shares below it, in percent, are drawn as nothing."""
_LEAST = 4.0
"""Changes in percentage points that are shown at full depth at the earliest: less is nothing to be loud about."""
_FAINTEST = 0.08
DEEPEST = 0.5
"""Opacity of the fullest cell: numbers keep their contrast upon it."""


def draw(confusion: Confusion) -> Canvas:
    """The matrices, one below the other."""
    count = len(confusion.classes)
    names = [folded(name, 90, SMALL, 1)[0] for name in confusion.classes]
    left = EDGE + 18 + max(breadth(name, SMALL) for name in names) + 6
    side = (RIGHT - left) / count
    tall = _CELL if count <= _MOST_NUMBERS else side
    each = _HEAD + count * tall + _FOOT
    canvas = Canvas(4 + len(confusion.matrices) * each + EDGE - 4)
    every = -(-count // 20)
    changes = [abs(v) for m in confusion.matrices if m.difference for v in m.shares.flat if math.isfinite(v)]
    far = max([_LEAST, *changes])
    for panel, matrix in enumerate(confusion.matrices):
        top = 4 + panel * each + _HEAD
        title = (
            f"{printable(matrix.arm)} minus {printable(confusion.matrices[0].arm)}"
            if matrix.difference
            else (printable(matrix.arm))
        )
        unit = "pp" if matrix.difference else "% of the true class"
        room = RIGHT - left - breadth(unit, SMALL) - 12
        canvas.text(left, top - 8, folded(title, room, most=1)[0], bold=True)
        canvas.text(RIGHT, top - 8, unit, size=SMALL, colour=SOFT, align="right")
        axes = canvas.axes(left, top, RIGHT - left, count * tall)
        axes.set_xlim(0, count)
        axes.set_ylim(count, 0)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines["bottom"].set_visible(False)
        axes.add_patch(_box(0, 0, count, count, SHADE.light, 0.6))
        for place in range(0, count, every):
            canvas.text(left - 6, top + (place + 0.5) * tall + 0.36 * SMALL, names[place], size=SMALL, align="right")
        _columns(canvas, names, left, top + count * tall + 13, side)
        canvas.text(EDGE + 3, top + count * tall / 2, "true class", size=SMALL, align="center", turned=True)
        canvas.label((left + RIGHT) / 2, top + count * tall + 28, "predicted class")
        _cells(axes, matrix, far if matrix.difference else 100.0, numbers=count <= _MOST_NUMBERS)
    return canvas


def _columns(canvas: Canvas, names: list[str], left: float, base: float, side: float) -> None:
    """Names under the columns, as many as there is room for."""
    wide = max(breadth(name, SMALL) for name in names) + 4
    every = max(1, math.ceil(wide / side))
    for place in range(0, len(names), every):
        canvas.text(left + (place + 0.5) * side, base, names[place], size=SMALL, align="center")


def _cells(axes: Axes, matrix: Matrix, full: float, *, numbers: bool) -> None:
    count = len(matrix.shares)
    for i in range(count):
        for j in range(count):
            value = float(matrix.shares[i, j])
            if not math.isfinite(value) or abs(value) < _FAINT:
                continue
            right = (i == j) == (value > 0)
            # Mistakes are far rarer than hits: a root lets them be seen.
            depth = (abs(value) / full) ** 0.5
            colour = BLUE if right else VERMILLION
            axes.add_patch(_box(j, i, 1, 1, colour.light, _FAINTEST + (DEEPEST - _FAINTEST) * depth))
            if numbers:
                text = number(value, 1 if abs(value) < 9.95 else 0, signed=matrix.difference)
                axes.text(
                    j + 0.5,
                    i + 0.5,
                    text,
                    size=SMALL,
                    ha="center",
                    va="center_baseline",
                    color=INK.light,
                )


def _box(x: float, y: float, width: float, height: float, colour: str, alpha: float):  # type: ignore[no-untyped-def]
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=colour, alpha=alpha, linewidth=0)


def draw_classes(classes: Classes) -> Canvas:
    """Changes of every class's recall, an interval for each arm."""
    names = [folded(row.name, 120, SMALL, 1)[0] for row in classes.rows]
    left = EDGE + max(breadth(name) for name in names) + 14
    step = 22.0 if len(classes.arms) == 1 else 28.0
    total = step * len(names)
    keys = [
        Key(folded(arm, RIGHT - EDGE - 30, SMALL, 1)[0], SERIES[place], marker=MARKERS[place])
        for place, arm in enumerate(classes.arms)
    ]
    legend = legend_rows(keys)
    canvas = Canvas(10 + total + 44 + len(legend) * LINE + EDGE)
    axes = canvas.axes(left, 10, RIGHT - 6 - left, total)
    changes = [change for row in classes.rows for change in row.changes if change]
    spans = [(c.mean, math.nan if c.low is None else c.low, math.nan if c.high is None else c.high) for c in changes]
    axes.set_xlim(*window(spans, [0.0]))
    axes.set_ylim(total, 0)
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="x")
    axes.axvline(0, color=SOFT.light, linewidth=1.0, zorder=1)
    for place, (row, name) in enumerate(zip(classes.rows, names, strict=True)):
        middle = (place + 0.5) * step
        canvas.lines(EDGE, 10 + middle, [name])
        _change(axes, row, middle)
    canvas.label((left + RIGHT) / 2, 10 + total + 33, f"recall, difference from {printable(classes.reference)} [pp]")
    canvas.legend(EDGE, 10 + total + 43 + LINE, legend)
    return canvas


def _change(axes: Axes, row: ClassChange, middle: float) -> None:
    low, high = axes.get_xlim()
    for place, change in enumerate(row.changes):
        if change is None:
            continue
        y = middle + (place - (len(row.changes) - 1) / 2) * 9
        colour, marker = SERIES[place], MARKERS[place]
        if change.low is not None and change.high is not None:
            bar = [min(max(end, low), high) for end in (change.low, change.high)]
            axes.plot(bar, [y, y], color=colour.light, linewidth=1.6, zorder=3)
        shape = "<" if change.mean < low else ">" if change.mean > high else marker
        x = min(max(change.mean, low), high)
        axes.plot(x, y, linestyle="none", clip_on=False, zorder=4, **marked(shape, colour, size=6))
