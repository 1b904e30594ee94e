"""Forest plot: each arm's difference from its reference with its interval, and what it is judged to be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnbench.figures.canvas import Canvas, Key, breadth, folded, legend_rows, marked, plain_log
from cnnbench.figures.limits import log_window, window
from cnnbench.figures.style import EDGE, INK, LINE, LOOKS, RIGHT, SHADE, SMALL, SOFT
from cnnbench.figures.subject import Subject, axis, change, deciding, numbers, verdict, verdict_keys
from cnnbench.quantities import ratio_beside
from cnnbench.ratios import FEWEST_SEEDS
from cnnbench.text import printable
from cnnbench.verdicts import T_INTERVAL, as_judged, interval_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cnnbench.tables import Row

_NAMES = 150.0
_PAD = 9.0
_TOP = 22.0
_SIGN = 13.0
"""Room of a verdict's sign."""


@dataclass(frozen=True)
class Entry:
    """One arm.

    Attributes:
        arm: its name, with its reference where that is not the baseline.
        look: key of ``LOOKS``: its verdict, or ``placebo``; ``unresolved`` also where nothing was judged.
        mean, low, high: in the displayed unit; nan where there is none.
        n: pairs of seeds.
        text: the numbers as tables show them, or why there are none.
        sign: the verdict's.
    """

    arm: str
    look: str
    mean: float
    low: float
    high: float
    n: int
    text: str
    sign: str = ""


@dataclass(frozen=True)
class Forest:
    """What the plot shows.

    Attributes:
        label: of the axis.
        entries: in the table's order, the placebo last.
        nothing: where no difference is: 0, of ratios 1.
        margin: ends of the band of what would not matter; None without one.
        better: which side is an improvement, ``higher``, ``lower`` or ``neither``.
        ratio: whether the axis is of ratios, hence logarithmic.
    """

    label: str
    entries: tuple[Entry, ...]
    nothing: float
    margin: tuple[float, float] | None
    better: str
    ratio: bool


def data(subject: Subject) -> Forest | None:
    """The differences in the primary quantity; None where no arm has one."""
    rows = sorted(
        (row for row in subject.table.rows if row.reference is not None), key=lambda row: row.role == "placebo"
    )
    beside = ratio_beside(subject.primary)
    ratio = beside is not None and any(
        (m := row.measured.get(beside.key)) is not None and m.value is not None for row in rows
    )
    entries = tuple(_entry(subject, row, ratio=ratio) for row in rows)
    if not any(math.isfinite(entry.mean) for entry in entries):
        return None
    nothing, margin = (1.0 if ratio else 0.0), None
    if subject.margin:
        size = subject.margin * subject.shown.factor
        margin = (1 / (1 + subject.margin), 1 + subject.margin) if ratio else (-size, size)
    against = printable(subject.trials.baseline) if subject.trials.baseline else "reference"
    label = (
        f"{subject.primary.label} as a ratio to {against}"
        if ratio
        else (axis(f"{subject.primary.label}, difference from {against}", subject.unit))
    )
    return Forest(label, entries, nothing, margin, subject.primary.better, ratio)


def _entry(subject: Subject, row: Row, *, ratio: bool) -> Entry:
    measured = deciding(row, subject.primary) if ratio else row.measured[subject.primary.key]
    estimate = measured.value if ratio else measured.difference
    name = printable(row.arm)
    if row.reference != subject.trials.baseline:
        name += f" (against {printable(row.reference or '')})"
    look = "placebo" if row.role == "placebo" else verdict(measured) or "unresolved"
    if estimate is None:
        why = f"{row.ok}/{row.planned} ok" if row.ok < row.planned else "–"
        return Entry(name, look, math.nan, math.nan, math.nan, 0, why)
    times = 1.0 if ratio else subject.shown.factor
    quantity = ratio_beside(subject.primary) if ratio else subject.primary
    assert quantity is not None
    low, high = (math.nan if end is None else end * times for end in (estimate.low, estimate.high))
    sign = LOOKS[look].sign if measured.judgement else ""
    return Entry(name, look, estimate.mean * times, low, high, estimate.n, change(estimate, quantity, times), sign)


def caption(subject: Subject, forest: Forest) -> str:
    """What is drawn."""
    kind = "ratio to" if forest.ratio else "difference from"
    counts = numbers(entry.n for entry in forest.entries)
    words = [
        f"{subject.primary.label}{subject.on}: each arm's {kind} its reference, paired by seed.",
        f"{_what(subject, forest)}, {counts}.",
        "Shape and colour are the verdict, corrected for the number of arms; an interval is not corrected.",
    ]
    if forest.margin:
        size = f"±{subject.margin:.0%}" if forest.ratio else f"±{forest.margin[1]:g} {subject.unit}".rstrip()
        words.append(f"The band is the margin of {size} that would not matter.")
    if any(entry.look == "placebo" for entry in forest.entries):
        words.append("The placebo is the baseline under other random streams: the run's noise.")
    return " ".join(words)


def _what(subject: Subject, forest: Forest) -> str:
    """What is drawn of each arm."""
    interval = interval_of(subject.trials)
    if forest.ratio:
        if max(entry.n for entry in forest.entries) < FEWEST_SEEDS:
            return "Geometric mean with the interval of measuring alone"
        return f"Geometric mean with its 95 % {interval}"
    judgements = (row.measured[subject.primary.key].judgement for row in subject.table.rows)
    if not any(as_judged(subject.primary, judgement) for judgement in judgements):
        interval = T_INTERVAL
    return f"Mean with its 95 % {interval}"


def draw(forest: Forest) -> Canvas:
    """The plot."""
    names = [folded(entry.arm, _NAMES) for entry in forest.entries]
    left = EDGE + max(breadth(line) for lines in names for line in lines) + 12
    right = RIGHT - _SIGN - max(breadth(entry.text, SMALL) for entry in forest.entries) - 12
    tops: list[float] = []
    total, apart = 4.0, 0.0
    for entry, lines in zip(forest.entries, names, strict=True):
        if entry.look == "placebo" and tops:
            apart = total + 5
            total += 10
        tops.append(total)
        total += len(lines) * LINE + _PAD
    keys = verdict_keys(entry.look for entry in forest.entries)
    keys += [Key("margin", SHADE, patch=True)] if forest.margin else []
    legend = legend_rows(keys)
    canvas = Canvas(_TOP + total + 44 + len(legend) * LINE + EDGE)
    axes = canvas.axes(left, _TOP, right - left, total)
    _frame(axes, forest, total)
    if apart:
        canvas.rule((EDGE, RIGHT), (_TOP + apart, _TOP + apart))
    for entry, lines, top in zip(forest.entries, names, tops, strict=True):
        middle = top + (len(lines) * LINE + _PAD) / 2
        canvas.lines(EDGE, _TOP + middle, lines, colour=SOFT if entry.look == "placebo" else INK)
        canvas.text(RIGHT - _SIGN, _TOP + middle + 0.36 * SMALL, entry.text, size=SMALL, align="right")
        look = LOOKS[entry.look]
        canvas.text(RIGHT, _TOP + middle + 0.36 * SMALL, entry.sign, size=SMALL, align="right", colour=look.colour)
        _interval(axes, entry, middle)
    _hints(canvas, forest, left, right)
    canvas.label((left + right) / 2, _TOP + total + 33, forest.label)
    canvas.legend(EDGE, _TOP + total + 43 + LINE, legend)
    return canvas


def _frame(axes: Axes, forest: Forest, total: float) -> None:
    """Limits, the margin's band, and the line of no difference."""
    spans = [(entry.mean, entry.low, entry.high) for entry in forest.entries]
    always = [forest.nothing, *(forest.margin or ())]
    if forest.ratio:
        axes.set_xscale("log")
        axes.set_xlim(*log_window(spans, always))
        plain_log(axes.xaxis)
    else:
        axes.set_xlim(*window(spans, always))
    axes.set_ylim(total, 0)
    axes.set_yticks([])
    axes.grid(axis="x")
    if forest.margin:
        axes.axvspan(*forest.margin, facecolor=SHADE.light, edgecolor="none", zorder=0.5)
    axes.axvline(forest.nothing, color=SOFT.light, linewidth=1.0, zorder=1)


def _interval(axes: Axes, entry: Entry, y: float) -> None:
    """Interval and mean; what lies beyond the axis is an arrow at its edge."""
    if not math.isfinite(entry.mean):
        return
    look = LOOKS[entry.look]
    low, high = axes.get_xlim()
    ends = [entry.mean if math.isnan(end) else end for end in (entry.low, entry.high)]
    inside = [min(max(end, low), high) for end in ends]
    if inside[0] < inside[1]:
        axes.plot(inside, [y, y], color=look.colour.light, linewidth=1.8, zorder=3)
    if ends[0] < low:
        axes.plot(low, y, linestyle="none", clip_on=False, zorder=4, **marked("<", look.colour))
    if ends[1] > high:
        axes.plot(high, y, linestyle="none", clip_on=False, zorder=4, **marked(">", look.colour))
    if low <= entry.mean <= high:
        axes.plot(
            entry.mean, y, linestyle="none", zorder=5, **marked(look.marker, look.colour, hollow=look.hollow, size=8)
        )


def _hints(canvas: Canvas, forest: Forest, left: float, right: float) -> None:
    """Which side is better."""
    if forest.better == "neither":
        return
    sides = ("← worse", "better →") if forest.better == "higher" else ("← better", "worse →")
    canvas.text(left, 14, sides[0], size=SMALL, colour=SOFT)
    canvas.text(right, 14, sides[1], size=SMALL, colour=SOFT, align="right")
