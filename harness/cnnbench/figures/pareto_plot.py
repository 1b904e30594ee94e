"""Drawing quality against cost: points, intervals, the front as a staircase, and names where there is room."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from cnnbench.figures.canvas import Canvas, Key, breadth, folded, legend_rows, marked, plain_log
from cnnbench.figures.labels import Box, place
from cnnbench.figures.limits import log_window, wide, window
from cnnbench.figures.pareto import MANY, WORDS
from cnnbench.figures.style import BLUE, EDGE, GREY, LINE, RIGHT, SHADE, SMALL, SOFT
from cnnbench.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from cnnbench.figures.pareto import Pareto, Point

_LONGEST = 140.0
"""A longer name is a number in the figure and stands under it."""
_LABEL = 13.0
"""Height of a label."""
_HEIGHT = 270.0
_TOP = 20.0
_LOOKS = {
    "front": ("o", BLUE, False),
    "open": ("o", BLUE, True),
    "behind": ("s", GREY, False),
    "placebo": ("x", SOFT, False),
}


def draw(pareto: Pareto) -> Canvas:
    """The plot."""
    left, height = EDGE + 44, _HEIGHT
    area = Box(left, _TOP, RIGHT, _TOP + height)
    trial = Canvas(_TOP + height)
    axes = _axes(trial, pareto, area)
    pixels = _placed(axes, pareto, trial)
    named, numbered = _labels(pareto, pixels, _lines(axes, pareto, trial), area)
    present = {point.standing for point in pareto.points}
    keys = [Key(WORDS[s], colour, marker=m, hollow=h) for s, (m, colour, h) in _LOOKS.items() if s in present]
    legend = legend_rows(keys)
    crowded = [_name(point) for number, point in numbered if not number]
    listing = _flow([f"{number}\u2009\u2009{_name(point)}" for number, point in numbered if number])
    listing += _flow(["without a label:", *crowded]) if crowded else []
    canvas = Canvas(area.bottom + 44 + (len(legend) + len(listing)) * LINE + (4 if listing else 0) + EDGE)
    axes = _axes(canvas, pareto, area)
    _marks(axes, pareto)
    for (x, y), box, text, bold in named:
        nearest = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
        if math.dist((x, y), nearest) > 9 or _nearer(pixels, (x, y), box):
            canvas.rule((x, nearest[0]), (y, nearest[1]), colour=SOFT, width=0.6)
        canvas.text(box.left, box.bottom - 3.5, text, size=SMALL, bold=bold)
    canvas.text(left, 13, "↖ cheaper and better" if pareto.up else "↙ cheaper and better", size=SMALL, colour=SOFT)
    canvas.text(EDGE + 3, _TOP + height / 2, pareto.quality_label, size=SMALL, align="center", turned=True)
    canvas.label((left + RIGHT) / 2, area.bottom + 33, pareto.cost_label)
    base = area.bottom + 43 + LINE
    canvas.legend(EDGE, base, legend)
    for number, row in enumerate(listing):
        for offset, item in row:
            canvas.text(EDGE + offset, base + 4 + (len(legend) + number) * LINE, item, size=SMALL)
    return canvas


def _nearer(pixels: Sequence[tuple[float, float]], own: tuple[float, float], box: Box) -> bool:
    """Whether a label is nearer to another point than to its own."""

    def away(point: tuple[float, float]) -> float:
        return math.dist(point, (min(max(point[0], box.left), box.right), min(max(point[1], box.top), box.bottom)))

    return any(away(point) < away(own) - 0.5 for point in pixels)


def _flow(items: Sequence[str]) -> list[list[tuple[float, str]]]:
    """Items side by side with their distances from the left, in as many rows as they take."""
    rows: list[list[tuple[float, str]]] = []
    place_, room = 0.0, RIGHT - EDGE
    for item in items:
        lines = folded(item, room, SMALL)
        width = breadth(lines[0], SMALL)
        if rows and len(lines) == 1 and place_ + width <= room:
            rows[-1].append((place_, item))
        else:
            rows += [[(0.0, line)] for line in lines]
            place_ = 0.0 if len(lines) == 1 else room
        place_ += width + 14
    return rows


def _axes(canvas: Canvas, pareto: Pareto, area: Box) -> Axes:
    axes = canvas.axes(area.left, area.top, area.right - area.left, area.bottom - area.top)
    costs, qualities = [point.cost for point in pareto.points], [point.quality for point in pareto.points]
    if wide([cost[0] for cost in costs]):
        axes.set_xscale("log")
        axes.set_xlim(*log_window(costs, [cost[0] for cost in costs]))
        plain_log(axes.xaxis)
    else:
        axes.set_xlim(*window(costs, [cost[0] for cost in costs]))
        axes.locator_params(axis="x", nbins=6)
    axes.set_ylim(*window(qualities, [point.quality[0] for point in pareto.front]))
    axes.locator_params(axis="y", nbins=6)
    axes.tick_params(axis="y", length=0)
    axes.grid()
    return axes


def _placed(axes: Axes, pareto: Pareto, canvas: Canvas) -> list[tuple[float, float]]:
    """Where the points lie on the canvas, those beyond the axes at the edge."""
    found = axes.transData.transform([_inside(axes, point) for point in pareto.points])
    return [(float(x), canvas.height - float(y)) for x, y in found]


def _inside(axes: Axes, point: Point) -> tuple[float, float]:
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    return min(max(point.cost[0], left), right), min(max(point.quality[0], low), high)


def _steps(axes: Axes, pareto: Pareto) -> list[tuple[float, float]]:
    """Corners of the front's staircase, from the cheapest arm to the right edge."""
    (_, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    front = [(point.cost[0], point.quality[0]) for point in pareto.front]
    return [(front[0][0], low if pareto.up else high), *front, (right, front[-1][1])]


def _marks(axes: Axes, pareto: Pareto) -> None:
    low, high = axes.get_ylim()
    xs, ys = zip(*_steps(axes, pareto), strict=True)
    axes.fill_between(xs, ys, low if pareto.up else high, step="post", facecolor=SHADE.light, linewidth=0, zorder=0.5)
    axes.plot(xs, ys, drawstyle="steps-post", color=BLUE.light, linewidth=1.3, zorder=2)
    for point in pareto.points:
        marker, colour, hollow = _LOOKS[point.standing]
        x, y = _inside(axes, point)
        for span, across in ((point.cost, True), (point.quality, False)):
            if not _outstanding(pareto, point):
                continue
            ends = [end for end in span[1:] if math.isfinite(end)]
            if ends and ends[0] < ends[1]:
                bar = (ends, [y, y]) if across else ([x, x], ends)
                axes.plot(*bar, color=colour.light, linewidth=1.0, alpha=0.55, zorder=2.5)
        if y != point.quality[0]:
            marker = "v" if point.quality[0] < low else "^"
        axes.plot(x, y, linestyle="none", clip_on=False, zorder=4, **marked(marker, colour, hollow=hollow, size=7))


def _name(point: Point) -> str:
    return printable(point.arm) + (" (est.)" if point.estimated else "")


def _outstanding(pareto: Pareto, point: Point) -> bool:
    """Whether a point has its name and intervals: all of few, of many those of the front and the baseline."""
    return len(pareto.points) <= MANY or point.baseline or point.standing == "front"


Label = tuple[tuple[float, float], Box, str, bool]


def _labels(
    pareto: Pareto, pixels: Sequence[tuple[float, float]], lines: Sequence[Box], area: Box
) -> tuple[list[Label], list[tuple[str, Point]]]:
    """Names where there is room, those of the front and of the baseline first; numbers for the others.

    Names keep clear of lines where they can, of points and of each other always.
    """
    marks = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in pixels]
    rank = {"front": 0, "open": 2, "behind": 3, "placebo": 4}
    order = sorted(
        range(len(pixels)), key=lambda i: 1 if pareto.points[i].baseline else rank[pareto.points[i].standing]
    )
    all_estimated = all(point.estimated for point in pareto.points)
    names = {i: printable(pareto.points[i].arm) if all_estimated else _name(pareto.points[i]) for i in order}
    sizes = {i: (breadth(names[i], SMALL, bold=pareto.points[i].baseline) + 2, _LABEL) for i in order}
    room = Box(area.left, area.top - 8, area.right, area.bottom)
    found: dict[int, Box] = {}
    for obstacles, near in ((lines, 3), ((), 2)):
        rest = [
            i for i in order if i not in found and sizes[i][0] <= _LONGEST and _outstanding(pareto, pareto.points[i])
        ]
        taken = [*marks, *obstacles, *found.values()]
        boxes = place([pixels[i] for i in rest], [sizes[i] for i in rest], taken, room, near)
        found |= {i: box for i, box in zip(rest, boxes, strict=True) if box is not None}
    labels: list[Label] = [(pixels[i], box, names[i], pareto.points[i].baseline) for i, box in found.items()]
    numbered = {i: str(number) for number, i in enumerate(sorted(i for i in order if i not in found), 1)}
    digits = {i: (breadth(number, SMALL) + 2, _LABEL) for i, number in numbered.items()}
    spots: dict[int, Box] = {}
    for obstacles in (lines, ()):
        rest = [i for i in numbered if i not in spots]
        taken = [*marks, *obstacles, *found.values(), *spots.values()]
        boxes = place([pixels[i] for i in rest], [digits[i] for i in rest], taken, room)
        spots |= {i: box for i, box in zip(rest, boxes, strict=True) if box is not None}
    labels += [(pixels[i], box, numbered[i], False) for i, box in spots.items()]
    order = sorted(numbered, key=lambda i: i not in spots)
    return labels, [(numbered[i] if i in spots else "", pareto.points[i]) for i in order]


def _lines(axes: Axes, pareto: Pareto, canvas: Canvas) -> list[Box]:
    """What is drawn of lines, as thin boxes on the canvas."""
    _, right = axes.get_xlim()
    steps = _steps(axes, pareto)
    segments = [((x, before), (x, y)) for (x, y), (_, before) in zip(steps[1:], steps, strict=False)] + [
        ((x, y), (later, y)) for (x, y), (later, _) in zip(steps, [*steps[1:], (right, 0.0)], strict=False)
    ]
    for point in filter(partial(_outstanding, pareto), pareto.points):
        x, y = _inside(axes, point)
        segments.append(((_end(point.cost[1], x), y), (_end(point.cost[2], x), y)))
        segments.append(((x, _end(point.quality[1], y)), (x, _end(point.quality[2], y))))
    boxes = []
    for start, stop in segments:
        (x0, y0), (x1, y1) = axes.transData.transform([start, stop])
        y0, y1 = canvas.height - y0, canvas.height - y1
        boxes.append(Box(min(x0, x1) - 1, min(y0, y1) - 1, max(x0, x1) + 1, max(y0, y1) + 1))
    return boxes


def _end(value: float, otherwise: float) -> float:
    return value if math.isfinite(value) else otherwise
