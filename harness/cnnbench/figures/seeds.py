"""Every seed as a point: each arm's values, each tied to its reference's value in the same seed."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnbench.figures.canvas import Canvas, Key, breadth, folded, legend_rows, marked
from cnnbench.figures.limits import window
from cnnbench.figures.style import EDGE, GREY, INK, LINE, LOOKS, RIGHT, SMALL, SOFT, VERMILLION
from cnnbench.figures.subject import Subject, axis, deciding, verdict, verdict_keys
from cnnbench.frame import PENDING
from cnnbench.numerals import rounded
from cnnbench.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMES = 150.0
_TOP = 10.0
_PAD = 10.0
_MOST_ROOM = 50.0
"""Height of an arm with many seeds."""


@dataclass(frozen=True)
class Dot:
    """One trial.

    Attributes:
        seed: its seed.
        value: in the displayed unit; nan where it is not ok.
        reference: the reference's value in this seed; nan where there is none.
        status: ``ok``, ``diverged`` ...
    """

    seed: int
    value: float
    reference: float
    status: str


@dataclass(frozen=True)
class Strip:
    """One arm.

    Attributes:
        arm: its name.
        look: its verdict, ``placebo``, or ``baseline``.
        dots: one for each planned seed.
        mean: of those that are ok; nan without any.
    """

    arm: str
    look: str
    dots: tuple[Dot, ...]
    mean: float

    @property
    def failed(self) -> str:
        """What became of the others, such as ``2 diverged``."""
        lost = Counter(dot.status for dot in self.dots if dot.status not in {"ok", PENDING})
        return ", ".join(f"{count} {status}" for status, count in lost.items())


@dataclass(frozen=True)
class Strips:
    """What the plot shows.

    Attributes:
        name: of the quantity.
        label: of the axis.
        strips: in the table's order.
        better: which direction is an improvement.
    """

    name: str
    label: str
    strips: tuple[Strip, ...]
    better: str


def data(subject: Subject) -> Strips | None:
    """The primary quantity of every trial; None where no trial has one."""
    key, times = subject.primary.key, subject.shown.factor
    strips = []
    for row in subject.table.rows:
        own = subject.values(row.arm, key)
        base = subject.values(row.reference, key) if row.reference else {}
        dots = tuple(
            Dot(
                seed,
                own.get(seed, math.nan) * times,
                base.get(seed, math.nan) * times,
                str(subject.trials.records.get((row.arm, seed), {}).get("status", PENDING)),
            )
            for seed in subject.trials.seeds_of(row.arm)
        )
        look = row.role if row.role in {"baseline", "placebo"} else verdict(deciding(row, subject.primary))
        mean = sum(own.values()) / len(own) * times if own else math.nan
        strips.append(Strip(row.arm, look or "unresolved", dots, mean))
    if all(math.isnan(strip.mean) for strip in strips):
        return None
    primary = subject.primary
    return Strips(primary.label, axis(primary.label, subject.shown.unit), tuple(strips), primary.better)


def caption(subject: Subject, strips: Strips) -> str:
    """What is drawn."""
    words = [
        f"{strips.name}{subject.on} of every trial: a point for each seed, in each arm the first seed on top.",
        "The bar is the mean. A thin line ties a point to its reference's value in the same seed (small upright).",
    ]
    if any(strip.failed for strip in strips.strips):
        words.append("Crosses at the right are trials without a value.")
    return " ".join(words)


def alt(strips: Strips) -> str:
    """Range and failures of each arm in words."""
    told = []
    for strip in strips.strips:
        values = [dot.value for dot in strip.dots if math.isfinite(dot.value)]
        least, most, mean = (rounded(end, 4) for end in (min(values), max(values), strip.mean)) if values else ("",) * 3
        words = [f"{least} to {most}, mean {mean}"] if values else []
        told.append(f"{printable(strip.arm)}: {', '.join(filter(None, [*words, strip.failed])) or 'nothing yet'}")
    return f"{strips.label} of every seed by arm. {'; '.join(told[:40])}."


def draw(strips: Strips) -> Canvas:
    """The plot."""
    names = [folded(strip.arm, _NAMES) for strip in strips.strips]
    most = max(len(strip.dots) for strip in strips.strips)
    step = min(6.0, _MOST_ROOM / most)
    heights = [
        max(len(lines) * LINE, len(strip.dots) * step) + _PAD for lines, strip in zip(names, strips.strips, strict=True)
    ]
    total = sum(heights)
    left = EDGE + max(breadth(line) for lines in names for line in lines) + 12
    lost = max(breadth(strip.failed, SMALL) for strip in strips.strips)
    right = RIGHT - (lost + 26 if lost else 4)
    keys = verdict_keys(strip.look for strip in strips.strips)
    keys += [Key("mean", INK, line="-", width=2.2), Key("reference", GREY, marker="|")]
    legend = legend_rows(keys)
    canvas = Canvas(_TOP + total + 44 + len(legend) * LINE + EDGE)
    axes = canvas.axes(left, _TOP, right - left, total)
    axes.set_xlim(*window([_span(strip) for strip in strips.strips]))
    axes.set_ylim(total, 0)
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="x")
    base = next((strip.mean for strip in strips.strips if strip.look == "baseline"), math.nan)
    if math.isfinite(base):
        axes.axvline(base, color=SOFT.light, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    top = 0.0
    for number, (strip, lines, height) in enumerate(zip(strips.strips, names, heights, strict=True)):
        middle = top + height / 2
        if number:
            canvas.rule((EDGE, RIGHT), (_TOP + top, _TOP + top))
        canvas.lines(EDGE, _TOP + middle, lines, colour=SOFT if strip.look == "placebo" else INK)
        _strip(axes, strip, middle, step)
        if strip.failed:
            _failures(axes, strip, middle, step, 1 + 8 / (right - left))
            canvas.text(RIGHT, _TOP + middle + 0.36 * SMALL, strip.failed, size=SMALL, align="right")
        top += height
    canvas.label((left + right) / 2, _TOP + total + 33, strips.label)
    canvas.legend(EDGE, _TOP + total + 43 + LINE, legend)
    return canvas


def _span(strip: Strip) -> tuple[float, float, float]:
    """Mean, least and largest of what is drawn."""
    drawn = [x for dot in strip.dots for x in (dot.value, dot.reference) if math.isfinite(x)]
    return strip.mean, min(drawn, default=math.nan), max(drawn, default=math.nan)


def _height(strip: Strip, place: int, middle: float, step: float) -> float:
    """Where a seed's point lies."""
    return middle + (place - (len(strip.dots) - 1) / 2) * step


def _strip(axes: Axes, strip: Strip, middle: float, step: float) -> None:
    look = LOOKS.get(strip.look)
    marker, colour, hollow = (look.marker, look.colour, look.hollow) if look else ("o", INK, False)
    low, high = axes.get_xlim()
    ties: list[tuple[float, float]] = []
    ends: list[tuple[float, float]] = []
    dots: dict[str, list[tuple[float, float]]] = {}
    for place, dot in enumerate(strip.dots):
        if not math.isfinite(dot.value):
            continue
        y, x = _height(strip, place, middle, step), min(max(dot.value, low), high)
        if math.isfinite(dot.reference):
            other = min(max(dot.reference, low), high)
            ties += [(other, y), (x, y), (math.nan, math.nan)]
            ends.append((other, y))
        shape = "<" if dot.value < low else ">" if dot.value > high else marker
        dots.setdefault(shape, []).append((x, y))
    if ties:
        axes.plot(*zip(*ties, strict=True), color=GREY.light, linewidth=0.8, alpha=0.7, zorder=2)
        axes.plot(*zip(*ends, strict=True), linestyle="none", zorder=2.5, **marked("|", GREY, size=4, edge=1.0))
    for shape, points in dots.items():
        own = marked(shape, colour, hollow=hollow, size=5, edge=1.1)
        axes.plot(*zip(*points, strict=True), linestyle="none", zorder=4, clip_on=False, **own)
    if low <= strip.mean <= high:
        reach = (len(strip.dots) - 1) / 2 * step + 4
        axes.plot([strip.mean] * 2, [middle - reach, middle + reach], color=INK.light, linewidth=2.2, zorder=3)


def _failures(axes: Axes, strip: Strip, middle: float, step: float, x: float) -> None:
    """A cross for each trial without a value, beside the axes; ``x`` is a share of their width."""
    for place, dot in enumerate(strip.dots):
        if dot.status not in {"ok", PENDING}:
            axes.plot(
                x,
                _height(strip, place, middle, step),
                linestyle="none",
                transform=axes.get_yaxis_transform(),
                clip_on=False,
                **marked("x", VERMILLION, size=4.5, edge=1.3),
            )
