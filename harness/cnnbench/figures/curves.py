"""Learning curves: the mean over seeds of what training recorded after each epoch, with its band."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cnnbench.figures.subject import Subject, numbers
from cnnbench.numerals import rounded
from cnnbench.stats.intervals import mean_interval
from cnnbench.text import listed, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cnnbench.stats.intervals import Estimate

TOGETHER = 4
"""So many curves share one panel; more have one each."""
_MEASURES = (
    ("validation_accuracy", "validation accuracy [%]", 100.0),
    ("validation_loss", "validation loss", 1.0),
    ("train_loss", "training loss", 1.0),
)


@dataclass(frozen=True)
class Curve:
    """One training.

    Attributes:
        arm: the first that has it.
        others: further arms that were trained just so; what they change comes after training.
        baseline: whether it is the baseline's.
        epochs: 1, 2 ...
        points: mean and 95 % t interval at each epoch, over the seeds that got so far, in the displayed unit.
    """

    arm: str
    others: tuple[str, ...]
    baseline: bool
    epochs: tuple[int, ...]
    points: tuple[Estimate, ...]


@dataclass(frozen=True)
class Curves:
    """What the plot shows.

    Attributes:
        label: of the axis.
        loss: whether less is better; the axis is logarithmic then.
        share: whether values lie between 0 and 100 %, and bands are cut off there.
        curves: in the table's order, the baseline first.
    """

    label: str
    loss: bool
    share: bool
    curves: tuple[Curve, ...]


def data(subject: Subject) -> Curves | None:
    """The curves of trials that are ok; None where the records hold none of more than one epoch."""
    by_training: dict[tuple[str, ...], list[str]] = {}
    for row in subject.table.rows:
        if any(_history(record) for record in subject.trials.ok(row.arm)):
            by_training.setdefault(_training(subject, row.arm), []).append(row.arm)
    for key, label, times in _MEASURES:
        share = label.endswith("[%]")
        curves = []
        for first, *others in by_training.values():
            epochs, points = _over_seeds([_history(record) for record in subject.trials.ok(first)], key, times)
            if share:
                points = tuple(map(_within_shares, points))
            if epochs:
                curves.append(Curve(first, tuple(others), first == subject.trials.baseline, epochs, points))
        if len({epoch for curve in curves for epoch in curve.epochs}) > 1:
            return Curves(label, "loss" in key, share, tuple(curves))
    return None


def _history(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return (record.get("details") or {}).get("history") or ()


def _training(subject: Subject, arm: str) -> tuple[str, ...]:
    """What tells one training from another: its stages' keys; without them the arm's name."""
    keys = tuple(str((record.get("stages") or {}).get("train") or "") for record in subject.trials.ok(arm))
    return keys if all(keys) else (arm,)


def _over_seeds(
    histories: Sequence[Sequence[Mapping[str, Any]]], key: str, times: float
) -> tuple[tuple[int, ...], tuple[Estimate, ...]]:
    by_epoch: dict[int, list[float]] = {}
    for history in histories:
        for entry in history:
            value = entry.get(key)
            if isinstance(value, int | float) and math.isfinite(value) and entry.get("epoch") is not None:
                by_epoch.setdefault(int(entry["epoch"]) + 1, []).append(float(value) * times)
    found = {epoch: mean_interval(values) for epoch, values in sorted(by_epoch.items())}
    known = {epoch: estimate for epoch, estimate in found.items() if estimate is not None}
    return tuple(known), tuple(known.values())


def _within_shares(point: Estimate) -> Estimate:
    """Without the part of the interval below 0 and above 100 %, where no share can lie."""
    if point.low is None or point.high is None:
        return point
    return replace(point, low=max(point.low, 0.0), high=min(point.high, 100.0))


def caption(subject: Subject, curves: Curves) -> str:
    """What is drawn."""
    counts = [point.n for curve in curves.curves for point in curve.points]
    words = [f"{curves.label.partition(' [')[0]} after each epoch{subject.on}: mean over seeds, {numbers(counts)}."]
    if max(counts) > 1:
        cut = curves.share and any(
            point.low == 0.0 or point.high == 100.0 for curve in curves.curves for point in curve.points
        )
        words.append(f"The band is the 95 % t interval of the mean{', cut off at 0 and 100 %' if cut else ''}.")
    if len(curves.curves) > TOGETHER and any(curve.baseline for curve in curves.curves):
        words.append("The dashed line in each panel is the baseline.")
    for curve in curves.curves:
        if curve.others:
            names = listed(map(printable, curve.others), 40)
            words.append(f"Trained just as {printable(curve.arm)}, and not drawn again: {names}.")
    return " ".join(words)


def alt(curves: Curves) -> str:
    """Where each curve ends, in words."""
    ends = [
        f"{printable(curve.arm)} {rounded(curve.points[-1].mean, 4)} after {curve.epochs[-1]}"
        for curve in curves.curves
    ]
    return f"Learning curves: {curves.label} over epochs. At the end: {listed(ends, 40)}."
