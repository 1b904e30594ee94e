"""Interaction plots of factorial designs: one axis down the page, the other as lines; parallel lines add up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cnnbench.contrasts import interplays
from cnnbench.figures.canvas import Canvas, Key, breadth, folded, legend_rows, marked, plain_log
from cnnbench.figures.limits import log_window, window
from cnnbench.figures.style import DASHES, EDGE, LINE, MARKERS, RIGHT, SERIES, SMALL
from cnnbench.figures.subject import ORDER, Subject, axis, contrast
from cnnbench.judged import exponential
from cnnbench.text import listed, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnnbench.figures.style import Colour

    _Look = tuple[Colour, str, Any]
    from cnnbench.contrasts import Interplay
    from cnnbench.stats.intervals import Estimate

_NAMES = 150.0
_TOP = 10.0
_DODGE = 7.0
_PAD = 14.0


@dataclass(frozen=True)
class Grid:
    """What one plot shows.

    Attributes:
        name: both axes.
        label: of the axis of values.
        rows, lines: levels of the axis down the page, and of the one that lines stand for: the one with fewer levels.
        line_axis: name of the latter.
        cells: mean, low and high by row and line in the displayed unit; nan for ends that are not there. Of times the
            ratio to the baseline's.
        n: seeds.
        verdicts: in words, by verdict.
        ratio: whether cells are ratios, hence the axis logarithmic: where lines run parallel there, changes multiply.
    """

    name: str
    label: str
    rows: tuple[str, ...]
    lines: tuple[str, ...]
    line_axis: str
    cells: tuple[tuple[tuple[float, float, float], ...], ...]
    n: int
    verdicts: dict[str, tuple[str, ...]]
    ratio: bool


def data(subject: Subject) -> list[Grid]:
    """One for each pair of axes of a factorial design in the primary quantity."""
    if subject.primary.better == "neither":
        return []
    return [_grid(subject, found) for found in interplays(subject.trials, subject.primary)]


def _grid(subject: Subject, found: Interplay) -> Grid:
    one, other = found.axes
    turned = len(one.levels) < len(other.levels)
    down, lines = (other, one) if turned else (one, other)
    ratio = subject.ratios
    cells = tuple(
        tuple(
            _span(found.means[line][row] if turned else found.means[row][line], subject)
            for line in range(len(lines.levels))
        )
        for row in range(len(down.levels))
    )
    told: dict[str, list[str]] = {}
    for (i, j), judgement in found.judgements.items():
        moved = contrast(subject, judgement)
        moved = f" ({moved})" if moved else ""
        told.setdefault(judgement.verdict, []).append(
            f"{printable(one.levels[i])} with {printable(other.levels[j])}{moved}"
        )
    return Grid(
        f"{printable(one.name)} and {printable(other.name)}",
        f"{subject.primary.label} as a ratio to the baseline"
        if ratio
        else axis(subject.primary.label, subject.shown.unit),
        tuple(down.levels),
        tuple(lines.levels),
        lines.name,
        cells,
        found.means[0][0].n,
        {verdict: tuple(names) for verdict, names in told.items()},
        ratio,
    )


def _span(estimate: Estimate, subject: Subject) -> tuple[float, float, float]:
    times = 1.0 if subject.ratios else subject.shown.factor
    estimate = exponential(estimate) if subject.ratios else estimate
    low, high = (math.nan if end is None else end * times for end in (estimate.low, estimate.high))
    return estimate.mean * times, low, high


def caption(subject: Subject, grid: Grid) -> str:
    """What is drawn."""
    what, of = ("ratio to the baseline, geometric means", " of logarithms") if grid.ratio else ("means", "")
    return (
        f"{subject.primary.label} by {grid.name}{subject.on}: {what} over the n = {grid.n} seeds that have all arms "
        f"and over the levels of other axes, with 95 % t intervals{of}. Where lines run parallel, the changes "
        f"{'multiply' if grid.ratio else 'add up'}."
    )


def alt(grid: Grid) -> str:
    """What is judged of each pair of changes."""
    meaning = {
        "better": "do better together than they add up to",
        "worse": "do worse together than they add up to",
        "equivalent": "add up, within the margin",
        "unresolved": "are unresolved",
    }
    parts = [f"{listed(grid.verdicts[v], 40)} {meaning[v]}" for v in ORDER if v in grid.verdicts]
    return f"Interaction plot of {grid.name}. {'; '.join(parts)}."


def draw(grid: Grid) -> Canvas:
    """The plot."""
    names = [folded(row, _NAMES) for row in grid.rows]
    left = EDGE + max(breadth(line) for lines in names for line in lines) + 12
    step = min(_DODGE, 24 / len(grid.lines))
    heights = [max(len(lines) * LINE, (len(grid.lines) - 1) * step + 10) + _PAD for lines in names]
    total = sum(heights)
    looks = [
        (SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)]) for i in range(len(grid.lines))
    ]
    keys = [
        Key(folded(f"{grid.line_axis}={line}", RIGHT - EDGE - 30, SMALL, 1)[0], colour, marker=marker, line=dash)
        for line, (colour, marker, dash) in zip(grid.lines, looks, strict=True)
    ]
    legend = legend_rows(keys)
    canvas = Canvas(_TOP + total + 44 + len(legend) * LINE + EDGE)
    axes = canvas.axes(left, _TOP, RIGHT - 6 - left, total)
    spans = [cell for row in grid.cells for cell in row]
    if grid.ratio:
        axes.set_xscale("log")
        axes.set_xlim(*log_window(spans, [1.0]))
        plain_log(axes.xaxis)
    else:
        axes.set_xlim(*window(spans))
        axes.locator_params(axis="x", nbins=6)
    axes.set_ylim(total, 0)
    axes.set_yticks([])
    axes.grid(axis="x")
    tops = [sum(heights[:place]) for place in range(len(heights))]
    middles = [top + height / 2 for top, height in zip(tops, heights, strict=True)]
    for lines, middle in zip(names, middles, strict=True):
        canvas.lines(EDGE, _TOP + middle, lines)
    for place, look in enumerate(looks):
        aside = (place - (len(looks) - 1) / 2) * step
        _line(axes, [row[place] for row in grid.cells], [middle + aside for middle in middles], look)
    canvas.label((left + RIGHT) / 2, _TOP + total + 33, grid.label)
    canvas.legend(EDGE, _TOP + total + 43 + LINE, legend)
    return canvas


def _line(axes: Axes, cells: list[tuple[float, float, float]], heights: list[float], look: _Look) -> None:
    colour, marker, dash = look
    low, high = axes.get_xlim()
    inside = [min(max(mean, low), high) for mean, _, _ in cells]
    axes.plot(inside, heights, color=colour.light, linestyle=dash, linewidth=1.1, zorder=2)
    for (mean, *ends), x, y in zip(cells, inside, heights, strict=True):
        if all(map(math.isfinite, ends)):
            bar = [min(max(end, low), high) for end in ends]
            axes.plot(bar, [y, y], color=colour.light, linewidth=1.6, alpha=0.6, zorder=2.5)
        shape = "<" if mean < low else ">" if mean > high else marker
        axes.plot(x, y, linestyle="none", clip_on=False, zorder=4, **marked(shape, colour, size=6))
