"""Confusion matrices: the baseline's, and what the best and the most changed arm change of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnbench.figures.subject import Subject, deciding, numbers, verdict
from cnnbench.numerals import number
from cnnbench.stats.intervals import paired_difference
from cnnbench.text import listed, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cnnbench.stats.intervals import Estimate

MOST_CLASSES = 40
"""Of more classes no matrix is drawn."""
_MOST_ROWS = 20


@dataclass(frozen=True)
class Matrix:
    """One panel.

    Attributes:
        arm: its name.
        why: what it is shown for.
        shares: [K, K], rows are the true classes: each row's share in percent, or what the arm changes of the
            reference's, in percentage points.
        difference: which of the two.
    """

    arm: str
    why: str
    shares: NDArray[np.float64]
    difference: bool


@dataclass(frozen=True)
class Confusion:
    """What the figure of matrices shows.

    Attributes:
        classes: their names, or numbers where the records have no names.
        matrices: the first is the baseline's.
        counts: seeds and images by arm, those that its sums are over.
    """

    classes: tuple[str, ...]
    matrices: tuple[Matrix, ...]
    counts: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class ClassChange:
    """What one class gains or loses.

    Attributes:
        name: of the class.
        changes: difference in recall by arm, percentage points, paired by seed with 95 % t interval; None for no pair.
    """

    name: str
    changes: tuple[Estimate | None, ...]


@dataclass(frozen=True)
class Classes:
    """What the figure of classes shows.

    Attributes:
        reference: that the arms are compared with.
        arms: one or two.
        rows: in the order of the classes; of many only the most changed ones.
        of: number of all classes.
    """

    reference: str
    arms: tuple[str, ...]
    rows: tuple[ClassChange, ...]
    of: int


def data(subject: Subject) -> Confusion | None:
    """Sums over the seeds; None without matrices of the baseline (of the first arm, where there is none)."""
    sums = {row.arm: found for row in subject.table.rows if (found := _summed(subject, row.arm)) is not None}
    first = subject.trials.baseline or next(iter(sums), None)
    if first is None or first not in sums or len(sums[first]) > MOST_CLASSES:
        return None
    base = _shares(sums[first])
    matrices = [Matrix(first, "", base, difference=False)]
    for arm, why in _chosen(subject, sums, first):
        matrices.append(Matrix(arm, why, _shares(sums[arm]) - base, difference=True))
    counts = {matrix.arm: (len(_matrices(subject, matrix.arm)), int(sums[matrix.arm].sum())) for matrix in matrices}
    return Confusion(_names(subject, len(base)), tuple(matrices), counts)


def by_class(subject: Subject) -> Classes | None:
    """The changes in every class's recall; None without a reference or an arm to compare."""
    sums = {row.arm: found for row in subject.table.rows if (found := _summed(subject, row.arm)) is not None}
    first = subject.trials.baseline
    if first is None or first not in sums:
        return None
    arms = [arm for arm, _ in _chosen(subject, sums, first)]
    if not arms:
        return None
    names = _names(subject, len(sums[first]))
    base = _recalls(subject, first)
    rows = []
    for k, name in enumerate(names):
        changes = []
        for arm in arms:
            own = _recalls(subject, arm)
            seeds = sorted(own.keys() & base.keys())
            changes.append(paired_difference([own[s][k] for s in seeds], [base[s][k] for s in seeds]))
        rows.append(ClassChange(name, tuple(changes)))
    if len(rows) > _MOST_ROWS:
        size = {row.name: max((abs(c.mean) for c in row.changes if c), default=0.0) for row in rows}
        kept = set(sorted(size, key=lambda name: -size[name])[:_MOST_ROWS])
        rows = [row for row in rows if row.name in kept]
    return Classes(first, tuple(arms), tuple(rows), len(names))


def _chosen(subject: Subject, sums: Mapping[str, NDArray[np.int64]], first: str) -> list[tuple[str, str]]:
    """The best arm and the one whose rows change most; one alone where they are the same."""
    sign = -1.0 if subject.primary.better == "lower" else 1.0
    base = _shares(sums[first])
    quality: dict[str, float] = {}
    moved: dict[str, float] = {}
    for row in subject.table.rows:
        value = row.measured[subject.primary.key].value
        if row.role == "arm" and row.arm in sums and value is not None and sums[row.arm].shape == base.shape:
            judged = verdict(deciding(row, subject.primary)) == "better"
            quality[row.arm] = sign * value.mean + (1e9 if judged else 0.0)
            moved[row.arm] = float(np.nansum(np.abs(_shares(sums[row.arm]) - base)))
    if not moved:
        return []
    best, most = max(quality, key=lambda arm: quality[arm]), max(moved, key=lambda arm: moved[arm])
    label = "best" if quality[best] > 1e8 else "highest mean" if sign > 0 else "lowest mean"
    return [(best, f"{label}, changes most")] if best == most else [(best, label), (most, "changes most")]


def _matrices(subject: Subject, arm: str) -> list[tuple[int, NDArray[np.int64]]]:
    found = []
    for record in subject.trials.of(arm):
        rows: Sequence[Sequence[Any]] = (record.get("details") or {}).get("confusion") or ()
        if record["status"] == "ok" and rows:
            found.append((int(record["seed"]), np.asarray(rows, dtype=np.int64)))
    return found


def _summed(subject: Subject, arm: str) -> NDArray[np.int64] | None:
    found = [matrix for _, matrix in _matrices(subject, arm)]
    if not found or len({matrix.shape for matrix in found}) > 1:
        return None
    total: NDArray[np.int64] = np.sum(found, axis=0)
    return total


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each row's share in percent; nan in the row of a class without images."""
    rows = counts.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.where(rows > 0, 100.0 * counts / np.maximum(rows, 1), math.nan)
    return shares


def _recalls(subject: Subject, arm: str) -> dict[int, NDArray[np.float64]]:
    return {seed: np.diag(_shares(matrix)) for seed, matrix in _matrices(subject, arm)}


def _names(subject: Subject, count: int) -> tuple[str, ...]:
    """Class names where a record has them, else numbers."""
    for record in subject.trials.records.values():
        names = (record.get("details") or {}).get("classes") or ()
        if len(names) == count:
            return tuple(str(name) for name in names)
    return tuple(map(str, range(count)))


def caption(subject: Subject, confusion: Confusion) -> str:
    """What is drawn."""
    first, *others = confusion.matrices
    seeds, images = confusion.counts[first.arm]
    over = f"{seeds} {'seed' if seeds == 1 else 'seeds'} ({images} predictions)"
    words = [f"Predictions of {printable(first.arm)}{subject.on}, summed over {over}: percent of each true class."]
    if others:
        names = [f"{printable(matrix.arm)} ({matrix.why}, n = {confusion.counts[matrix.arm][0]})" for matrix in others]
        told = " and ".join(names)
        words.append(f"Below it what changes of that, in percentage points: {told}. Blue is right, orange is wrong.")
    return " ".join(words)


def alt(confusion: Confusion) -> str:
    """The most frequent mistakes, and the largest changes, in words."""
    first, *others = confusion.matrices
    names, off = confusion.classes, np.nan_to_num(first.shares.copy())
    np.fill_diagonal(off, 0.0)
    told = [f"{names[i]} taken for {names[j]} ({number(off[i, j], 1)} %)" for i, j in _largest(off, 3)]
    words = [f"Confusion matrix of {printable(first.arm)}. Most frequent mistakes: {listed(told) or 'none'}."]
    for matrix in others:
        size = np.nan_to_num(matrix.shares)
        told = [
            f"{names[i]} as {names[j]} {number(size[i, j], 1, signed=True)} pp" for i, j in _largest(np.abs(size), 3)
        ]
        words.append(f"{printable(matrix.arm)} against it: largest changes {listed(told) or 'none'}.")
    return " ".join(words)


def _largest(values: NDArray[np.float64], most: int) -> list[tuple[int, int]]:
    order = np.argsort(-values, axis=None, kind="stable")[:most]
    found = [divmod(int(place), values.shape[1]) for place in order]
    return [(i, j) for i, j in found if values[i, j] > 0]


def class_caption(subject: Subject, classes: Classes) -> str:
    """What is drawn of the classes."""
    counts = [change.n for row in classes.rows for change in row.changes if change]
    some = f" The {len(classes.rows)} most changed of {classes.of} classes." if len(classes.rows) < classes.of else ""
    return (
        f"Recall of each class{subject.on}: difference from {printable(classes.reference)}, paired by seed, mean with "
        f"95 % t interval, {numbers(counts)}. Not corrected for the number of classes.{some}"
    )


def class_alt(classes: Classes) -> str:
    """Which classes an arm's intervals set apart from no change."""
    words = []
    for place, arm in enumerate(classes.arms):
        up, down = [], []
        for row in classes.rows:
            found = row.changes[place]
            if found is None or found.low is None or found.high is None:
                continue
            if found.low > 0:
                up.append(f"{row.name} ({number(found.mean, 1, signed=True)} pp)")
            elif found.high < 0:
                down.append(f"{row.name} ({number(found.mean, 1, signed=True)} pp)")
        parts = [f"higher in {listed(up, 20)}"] if up else []
        parts += [f"lower in {listed(down, 20)}"] if down else []
        words.append(f"{printable(arm)}: {' and '.join(parts) or 'no class differs clearly'}.")
    return f"Recall by class against {printable(classes.reference)}. {' '.join(words)}"
