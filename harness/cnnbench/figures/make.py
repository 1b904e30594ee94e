"""The figures of a report."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cnnbench.figures import (
    confusion,
    confusion_plot,
    curves,
    curves_plot,
    forest,
    interactions,
    pareto,
    pareto_plot,
    seeds,
    steps,
)
from cnnbench.figures.figure import Figure, figure
from cnnbench.figures.subject import Subject, findings, slug, subjects

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from cnnbench.tables import Report


def make_figures(report: Report, records: Sequence[Mapping[str, Any]]) -> tuple[Figure, ...]:
    """All figures that the records have something for, in reading order; with several datasets for each.

    Args:
        report: of the records.
        records: in the order of the file.

    Raises:
        UsageError: there are no records.
    """
    return tuple(made for subject in subjects(report.tables, records) for made in _of(subject))


def write(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """``KEY.svg`` and ``KEY.png`` of each figure; earlier files of these names are replaced.

    Args:
        figures: what to write.
        folder: made where it is not there.

    Returns:
        The files, in the order of the figures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for one in figures:
        picture, pixels = folder / f"{one.key}.svg", folder / f"{one.key}.png"
        picture.write_text(one.svg, encoding="utf-8", newline="\n")
        pixels.write_bytes(one.png())
        written += [picture, pixels]
    return written


def _of(subject: Subject) -> Iterator[Figure]:
    yield from _comparisons(subject)
    yield from _designs(subject)
    yield from _trainings(subject)


def _comparisons(subject: Subject) -> Iterator[Figure]:
    """What arms gain, what it costs, and the trials behind it."""
    tail, on = subject.tail, subject.on
    if (differences := forest.data(subject)) is not None:
        yield figure(
            f"forest{tail}",
            f"Differences in {subject.primary.label}{on}",
            forest.caption(subject, differences),
            f"Forest plot. {findings(subject)}",
            partial(forest.draw, differences),
        )
    for plane in pareto.data(subject):
        yield figure(
            f"pareto-{slug(plane.key)}{tail}",
            f"{plane.quality_name} against {plane.cost_name}{on}",
            pareto.caption(subject, plane),
            pareto.alt(plane),
            partial(pareto_plot.draw, plane),
        )
    if (strips := seeds.data(subject)) is not None:
        yield figure(
            f"seeds{tail}",
            f"{strips.name} of every seed{on}",
            seeds.caption(subject, strips),
            seeds.alt(strips),
            partial(seeds.draw, strips),
        )


def _designs(subject: Subject) -> Iterator[Figure]:
    """What factorial and cumulative designs tell beside that."""
    tail, on = subject.tail, subject.on
    for number, grid in enumerate(interactions.data(subject), 1):
        yield figure(
            f"interactions-{number}{tail}",
            f"{subject.primary.label} by {grid.name}{on}",
            interactions.caption(subject, grid),
            interactions.alt(grid),
            partial(interactions.draw, grid),
        )
    if (stairs := steps.data(subject)) is not None:
        yield figure(
            f"steps{tail}",
            f"{subject.primary.label} step by step{on}",
            steps.caption(subject, stairs),
            steps.alt(stairs),
            partial(steps.draw, stairs),
        )


def _trainings(subject: Subject) -> Iterator[Figure]:
    """How training went, and where the networks err."""
    tail, on = subject.tail, subject.on
    if (lines := curves.data(subject)) is not None:
        yield figure(
            f"curves{tail}",
            f"Learning curves{on}",
            curves.caption(subject, lines),
            curves.alt(lines),
            partial(curves_plot.draw, lines),
        )
    if (matrices := confusion.data(subject)) is not None:
        yield figure(
            f"confusion{tail}",
            f"Confusion matrices{on}",
            confusion.caption(subject, matrices),
            confusion.alt(matrices),
            partial(confusion_plot.draw, matrices),
        )
    if (classes := confusion.by_class(subject)) is not None:
        yield figure(
            f"classes{tail}",
            f"Recall by class{on}",
            confusion.class_caption(subject, classes),
            confusion.class_alt(classes),
            partial(confusion_plot.draw_classes, classes),
        )
