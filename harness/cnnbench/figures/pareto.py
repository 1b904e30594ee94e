"""Quality against cost: every arm with its intervals, and the front of those that no other arm beats in both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from cnnbench.figures.subject import Subject, axis, numbers
from cnnbench.numerals import rounded, scale
from cnnbench.quantities import is_ratio
from cnnbench.stats.intervals import paired_difference
from cnnbench.text import listed, printable

if TYPE_CHECKING:
    from cnnbench.quantities import Quantity
    from cnnbench.stats.intervals import Estimate
    from cnnbench.tables import Row

Standing = Literal["front", "open", "behind", "placebo"]
_COSTS = ("latency_b", "energy_inference_mj", "size_bytes", "params", "flops")
MANY = 12
"""Of more arms only the front and the baseline have names and intervals; the others are numbers."""
WORDS: Final = {
    "front": "on the Pareto front",
    "open": "not told apart from it",
    "behind": "behind it",
    "placebo": "placebo",
}


@dataclass(frozen=True)
class Point:
    """One arm.

    Attributes:
        arm: its name.
        baseline: whether it is the baseline.
        cost, quality: mean, low and high in displayed units; nan for ends that are not there.
        standing: ``front``; ``open``: by its means behind the front, which the seeds do not show; ``behind``; or
            ``placebo``, which takes no part.
        estimated: whether its cost is an estimate.
        n: seeds of its quality.
    """

    arm: str
    baseline: bool
    cost: tuple[float, float, float]
    quality: tuple[float, float, float]
    standing: Standing
    estimated: bool
    n: int


@dataclass(frozen=True)
class Pareto:
    """What one plot shows.

    Attributes:
        key: the cost's.
        cost_label, quality_label: of the axes, with units.
        cost_name, quality_name: without.
        up: whether more quality is better.
        points: in the table's order.
    """

    key: str
    cost_label: str
    quality_label: str
    cost_name: str
    quality_name: str
    up: bool
    points: tuple[Point, ...]

    @property
    def front(self) -> list[Point]:
        """The front, the cheapest first."""
        return sorted((p for p in self.points if p.standing == "front"), key=lambda point: point.cost[0])


def data(subject: Subject) -> list[Pareto]:
    """One for each cost that the table shows and in which arms differ."""
    found = []
    for quantity in subject.table.quantities:
        if quantity.key.startswith(_COSTS) and not is_ratio(quantity) and quantity.better == "lower":
            made = _against(subject, quantity)
            found += [made] if made is not None else []
    return found


def _against(subject: Subject, cost: Quantity) -> Pareto | None:
    primary = subject.primary
    if primary.better == "neither" or primary.key == cost.key or "_p9" in cost.key or cost.key == "params_trainable":
        return None
    rows: list[tuple[Row, Estimate, Estimate]] = []
    for row in subject.table.rows:
        spent, reached = row.measured[cost.key].value, row.measured[primary.key].value
        if spent is not None and reached is not None:
            rows.append((row, spent, reached))
    if len({spent.mean for row, spent, _ in rows if row.role != "placebo"}) < 2:
        return None
    shown = scale(cost, (spent.mean for _, spent, _ in rows))
    standing = standings(subject, {row.arm: (s.mean, q.mean) for row, s, q in rows if row.role != "placebo"})
    points = tuple(
        Point(
            row.arm,
            row.role == "baseline",
            _span(spent, shown.factor),
            _span(reached, subject.shown.factor),
            standing.get(row.arm, "placebo"),
            "estimated" in row.measured[cost.key].method,
            reached.n,
        )
        for row, spent, reached in rows
    )
    unit = f"{shown.unit}, estimated" if all(point.estimated for point in points) else shown.unit
    quality = axis(primary.label, subject.shown.unit)
    return Pareto(
        cost.key, axis(cost.label, unit), quality, cost.label, primary.label, primary.better == "higher", points
    )


def standings(subject: Subject, means: dict[str, tuple[float, float]]) -> dict[str, Standing]:
    """Where each arm stands.

    On the front are those that no other arm beats: by its means not dearer, not worse, and not equal in both. Another
    arm is told apart from it where one of those that beat it is better in quality by a paired 95 % interval.

    Args:
        subject: with the values by seed.
        means: cost, of which less is better, and quality by arm, in recorded units.
    """
    sign = 1.0 if subject.primary.better == "higher" else -1.0
    found: dict[str, Standing] = {}
    for arm, (spent, reached) in means.items():
        beaten_by = [
            other
            for other, (theirs, quality) in means.items()
            if theirs <= spent and sign * quality >= sign * reached and (theirs, quality) != (spent, reached)
        ]
        if not beaten_by:
            found[arm] = "front"
        else:
            surely = any(_surely(subject, other, arm, sign) for other in beaten_by)
            found[arm] = "behind" if surely else "open"
    return found


def _surely(subject: Subject, arm: str, other: str, sign: float) -> bool:
    """Whether the first arm's quality is better by the paired interval."""
    mine, theirs = (subject.values(name, subject.primary.key) for name in (arm, other))
    seeds = sorted(mine.keys() & theirs.keys())
    found = paired_difference(np.array([mine[s] for s in seeds]), np.array([theirs[s] for s in seeds]))
    if found is None or found.low is None or found.high is None:
        return False
    return found.low > 0 if sign > 0 else found.high < 0


def _span(estimate: Estimate, times: float) -> tuple[float, float, float]:
    ends = (math.nan if end is None else end * times for end in (estimate.low, estimate.high))
    return (estimate.mean * times, *ends)  # type: ignore[return-value]


def caption(subject: Subject, pareto: Pareto) -> str:
    """What is drawn."""
    words = [
        f"{pareto.quality_name} against {pareto.cost_name}{subject.on}.",
        f"Means with 95 % intervals, {numbers(point.n for point in pareto.points)}.",
        "The line is the Pareto front by means: no other arm is both cheaper and better.",
    ]
    if len(pareto.points) > MANY:
        words.append("Intervals are those of the front and the baseline; the others' stand in the table.")
    if any(point.standing == "open" for point in pareto.points):
        words.append(
            "Hollow: behind the front, but no arm that beats it there is surely better (paired 95 % interval)."
        )
    if any(point.estimated for point in pareto.points):
        words.append(f"{pareto.cost_name} is estimated, not measured.")
    return " ".join(words)


def alt(pareto: Pareto) -> str:
    """The front in words."""
    told = [
        f"{printable(point.arm)} ({rounded(point.cost[0], 3)}, {rounded(point.quality[0], 4)})"
        for point in pareto.front
    ]
    words = [
        f"Scatter plot of {pareto.quality_label} against {pareto.cost_label}.",
        f"Pareto front from the cheapest: {listed(told, 40)}.",
    ]
    for standing in ("open", "behind"):
        names = [printable(point.arm) for point in pareto.points if point.standing == standing]
        if names:
            words.append(f"{WORDS[standing].capitalize()}: {listed(names, 40)}.")
    return " ".join(words)
