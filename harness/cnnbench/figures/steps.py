"""Steps of a cumulative design: where each step leads, and what it adds to the one before."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cnnbench.contrasts import by_cell_of, design_of, families
from cnnbench.figures.canvas import Canvas, breadth, folded, legend_rows, marked, plain_log
from cnnbench.figures.limits import log_window, window
from cnnbench.figures.style import EDGE, GREY, INK, LINE, LOOKS, RIGHT, SMALL, SOFT
from cnnbench.figures.subject import ORDER, Subject, axis, contrast, verdict_keys
from cnnbench.judged import exponential
from cnnbench.stats.intervals import mean_interval
from cnnbench.text import listed, printable

_NAMES = 150.0
_TOP = 22.0
_PAD = 12.0
_SIGN = 13.0


@dataclass(frozen=True)
class Step:
    """One arm of the staircase.

    Attributes:
        arm: its name.
        mean, low, high: in the displayed unit, of times the ratio to the first's; nan where there is none.
        verdict: on the step from the arm before; empty for the first.
        text: what the step adds, with its interval and unit.
    """

    arm: str
    mean: float
    low: float
    high: float
    verdict: str
    text: str


@dataclass(frozen=True)
class Stairs:
    """What the plot shows.

    Attributes:
        label: of the axis.
        steps: in the design's order, the baseline first.
        n: least seeds of a step.
        ratio: whether the axis is of ratios, hence logarithmic.
    """

    label: str
    steps: tuple[Step, ...]
    n: int
    ratio: bool


def data(subject: Subject) -> Stairs | None:
    """The steps in the primary quantity; None where the design is not cumulative, or its steps are not judged."""
    design = design_of(subject.trials)
    found = families(subject.trials, subject.table.quantities).get("steps", ())
    if design is None or not found or subject.primary.key not in found[0].judgements:
        return None
    rows = {row.arm: row for row in subject.table.rows}
    logs = by_cell_of(subject.trials, design, subject.primary) if subject.ratios else {}
    judgements = [None, *(effect.judgements[subject.primary.key] for effect in found)]
    steps = []
    for (cell, arm), judgement in zip(design.arms.items(), judgements, strict=True):
        value, times = rows[arm].measured[subject.primary.key].value, subject.shown.factor
        if subject.ratios:
            found_logs, times = mean_interval(logs[cell]), 1.0
            value = exponential(found_logs) if found_logs else None
        span = (value.mean, value.low, value.high) if value else (None, None, None)
        mean, low, high = (math.nan if end is None else end * times for end in span)
        moved = contrast(subject, judgement) if judgement else ""
        steps.append(Step(arm, mean, low, high, judgement.verdict if judgement else "", moved))
    n = min((judgement.n for judgement in judgements if judgement), default=0)
    against = f"{subject.primary.label} as a ratio to {printable(steps[0].arm)}"
    label = against if subject.ratios else axis(subject.primary.label, subject.shown.unit)
    return Stairs(label, tuple(steps), n, subject.ratios)


def caption(subject: Subject, stairs: Stairs) -> str:
    """What is drawn."""
    first = f" as a ratio to {printable(stairs.steps[0].arm)}" if stairs.ratio else ""
    return (
        f"{subject.primary.label}{subject.on} after each step{first}, with 95 % intervals over seeds. At the right "
        f"what the step {'makes of' if stairs.ratio else 'adds to'} the one before, paired by seed (n ≥ {stairs.n}); "
        "shape and colour are the verdict on the step."
    )


def alt(stairs: Stairs) -> str:
    """What each step is judged to do."""
    groups: dict[str, list[str]] = {}
    for step in stairs.steps[1:]:
        groups.setdefault(step.verdict, []).append(f"{printable(step.arm)} ({step.text})")
    parts = [f"{verdict}: {listed(groups[verdict], 40)}" for verdict in ORDER if verdict in groups]
    return f"Steps from {printable(stairs.steps[0].arm)}, each against the one before. {'; '.join(parts)}."


def draw(stairs: Stairs) -> Canvas:
    """The plot."""
    names = [folded(step.arm, _NAMES) for step in stairs.steps]
    left = EDGE + max(breadth(line) for lines in names for line in lines) + 12
    right = RIGHT - _SIGN - max(breadth(text, SMALL) for text in ("this step", *(s.text for s in stairs.steps))) - 12
    heights = [len(lines) * LINE + _PAD for lines in names]
    total = sum(heights)
    legend = legend_rows(verdict_keys(step.verdict for step in stairs.steps))
    canvas = Canvas(_TOP + total + 44 + len(legend) * LINE + EDGE)
    axes = canvas.axes(left, _TOP, right - left, total)
    spans = [(step.mean, step.low, step.high) for step in stairs.steps]
    low, high = log_window(spans, [1.0]) if stairs.ratio else window(spans)
    if stairs.ratio:
        axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(total, 0)
    axes.set_yticks([])
    if stairs.ratio:
        plain_log(axes.xaxis)
    else:
        axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x")
    canvas.text(RIGHT - _SIGN, 14, "this step", size=SMALL, colour=SOFT, align="right")
    before: tuple[float, float] | None = None
    top = 0.0
    for step, lines, height in zip(stairs.steps, names, heights, strict=True):
        middle, base = top + height / 2, _TOP + top + height / 2 + 0.36 * SMALL
        top += height
        canvas.lines(EDGE, _TOP + middle, lines)
        look = LOOKS.get(step.verdict)
        colour = look.colour if look else INK
        canvas.text(RIGHT - _SIGN, base, step.text, size=SMALL, align="right")
        canvas.text(RIGHT, base, look.sign if look else "", size=SMALL, colour=colour, align="right")
        if not math.isfinite(step.mean):
            continue
        x = min(max(step.mean, low), high)
        if before is not None:
            axes.plot([before[0], before[0], x], [before[1], middle, middle], color=GREY.light, linewidth=1.0, zorder=2)
        if math.isfinite(step.low):
            bar = [min(max(end, low), high) for end in (step.low, step.high)]
            axes.plot(bar, [middle, middle], color=colour.light, linewidth=1.8, zorder=3)
        shape = "<" if step.mean < low else ">" if step.mean > high else look.marker if look else "o"
        hollow = look.hollow if look else False
        axes.plot(x, middle, linestyle="none", clip_on=False, zorder=5, **marked(shape, colour, hollow=hollow, size=8))
        before = (x, middle)
    canvas.label((left + right) / 2, _TOP + total + 33, stairs.label)
    canvas.legend(EDGE, _TOP + total + 43 + LINE, legend)
    return canvas
