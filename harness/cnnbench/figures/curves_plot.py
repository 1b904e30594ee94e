"""Drawing learning curves: a few in one panel, more in small panels, each with the baseline behind it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cnnbench.figures.canvas import Canvas, Key, folded, legend_rows, plain_log
from cnnbench.figures.curves import TOGETHER
from cnnbench.figures.limits import log_window, window
from cnnbench.figures.style import BLUE, DASHES, EDGE, LINE, RIGHT, SERIES, SMALL, SOFT
from cnnbench.numerals import rounded
from cnnbench.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnnbench.figures.curves import Curve, Curves
    from cnnbench.figures.style import Colour

_LEFT = EDGE + 44
_TOP = 8.0
_TALL = 230.0
_SMALL_PANEL = 92.0
_GAP = 14.0
_LINE_ROOM = 0.01
"""Of the axis, beyond 0 and 100 %: a line that lies there is drawn whole."""


def draw(curves: Curves) -> Canvas:
    """The plot."""
    return _one_panel(curves) if len(curves.curves) <= TOGETHER else _panels(curves)


def _one_panel(curves: Curves) -> Canvas:
    keys = [Key(printable(curve.arm), SERIES[place], line=DASHES[place]) for place, curve in enumerate(curves.curves)]
    keys = [Key(folded(key.text, RIGHT - EDGE - 30, SMALL, 1)[0], key.colour, line=key.line) for key in keys]
    legend = legend_rows(keys)
    canvas = Canvas(_TOP + _TALL + 44 + len(legend) * LINE + EDGE)
    axes = canvas.axes(_LEFT, _TOP, RIGHT - _LEFT, _TALL)
    for place, curve in enumerate(curves.curves):
        _curve(axes, curve, SERIES[place], DASHES[place])
    _frame(axes, curves)
    canvas.text(EDGE + 3, _TOP + _TALL / 2, curves.label, size=SMALL, align="center", turned=True)
    canvas.label((_LEFT + RIGHT) / 2, _TOP + _TALL + 33, "epoch")
    canvas.legend(EDGE, _TOP + _TALL + 43 + LINE, legend)
    return canvas


def _panels(curves: Curves) -> Canvas:
    base = next((curve for curve in curves.curves if curve.baseline), None)
    shown = [curve for curve in curves.curves if curve is not base]
    across = 2 if len(shown) <= 12 else 3
    width = (RIGHT - _LEFT - (across - 1) * _GAP) / across
    rows = [shown[start : start + across] for start in range(0, len(shown), across)]
    titles = [[folded(curve.arm, width, SMALL, 2) for curve in row] for row in rows]
    heads = [max(map(len, row)) * LINE + 4 for row in titles]
    keys = [Key("the arm", BLUE, line="-")]
    keys += [Key(folded(base.arm, 200, SMALL, 1)[0], SOFT, line=(0, (3, 2)))] if base else []
    legend = legend_rows(keys)
    total = sum(heads) + len(rows) * (_SMALL_PANEL + _GAP)
    canvas = Canvas(_TOP + total + 32 + len(legend) * LINE + EDGE)
    top = _TOP
    for number, (row, names, head) in enumerate(zip(rows, titles, heads, strict=True)):
        for place, (curve, lines) in enumerate(zip(row, names, strict=True)):
            left = _LEFT + place * (width + _GAP)
            for line, text in enumerate(lines):
                canvas.text(left, top + head - 6 - (len(lines) - 1 - line) * LINE, text, size=SMALL)
            axes = canvas.axes(left, top + head, width, _SMALL_PANEL)
            if base is not None:
                _curve(axes, base, SOFT, (0, (3, 2)), band=False)
            _curve(axes, curve, BLUE, "-")
            _frame(axes, curves, few=4)
            lowest = number == len(rows) - 1 or (number == len(rows) - 2 and place >= len(rows[-1]))
            end, (low, high) = curve.points[-1].mean, axes.get_ylim()
            if not low <= end <= high:
                beyond = f"{'↓' if end < low else '↑'} ends at {rounded(end, 3)}"
                canvas.text(left + width - 4, top + head + _SMALL_PANEL - 8, beyond, size=SMALL, align="right")
            axes.tick_params(labelleft=place == 0, labelbottom=lowest)
        top += head + _SMALL_PANEL + _GAP
    canvas.text(EDGE + 3, _TOP + (top - _TOP) / 2, curves.label, size=SMALL, align="center", turned=True)
    canvas.label((_LEFT + RIGHT) / 2, top + 20, "epoch")
    canvas.legend(EDGE, top + 30 + LINE, legend)
    return canvas


def _curve(axes: Axes, curve: Curve, colour: Colour, dash: Any, *, band: bool = True) -> None:
    means = [point.mean for point in curve.points]
    if band and any(point.low is not None for point in curve.points):
        low = [math.nan if point.low is None else point.low for point in curve.points]
        high = [math.nan if point.high is None else point.high for point in curve.points]
        axes.fill_between(curve.epochs, low, high, facecolor=colour.light, alpha=0.18, linewidth=0, zorder=1.5)
    lone = len(means) == 1
    axes.plot(
        curve.epochs,
        means,
        color=colour.light,
        linestyle=dash,
        linewidth=1.6,
        zorder=3,
        marker="o" if lone else None,
        markersize=4,
        dash_capstyle="butt",
    )


def _frame(axes: Axes, curves: Curves, few: int = 7) -> None:
    """The same limits for every panel."""
    last = max(curve.epochs[-1] for curve in curves.curves)
    axes.set_xlim(1 - min(0.03 * last, 0.5), last + 0.03 * last)  # there is no epoch 0 to be ticked
    axes.locator_params(axis="x", nbins=few, integer=True)
    low, high = _limits(curves)
    if _logarithmic(curves):
        axes.set_yscale("log")
    axes.set_ylim(low, high)
    if _logarithmic(curves):
        plain_log(axes.yaxis)
    else:
        axes.locator_params(axis="y", nbins=few)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y")


def _logarithmic(curves: Curves) -> bool:
    return curves.loss and all(point.mean > 0 for curve in curves.curves for point in curve.points)


def _limits(curves: Curves) -> tuple[float, float]:
    """What the ends of training need, of a loss all of it."""
    spans = []
    for curve in curves.curves:
        end, means = curve.points[-1], [point.mean for point in curve.points]
        ends = (end.mean, math.nan if end.low is None else end.low, math.nan if end.high is None else end.high)
        spans.append((end.mean, min(means), max(means)) if curves.loss else ends)
    low, high = log_window(spans) if _logarithmic(curves) else window(spans)
    if curves.share:
        room = _LINE_ROOM * (high - low)
        low, high = max(low, 0.0 - room), min(high, 100.0 + room)
    return low, high
