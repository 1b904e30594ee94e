"""The figures of a report."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

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
from cnnbench.figures.subject import findings, slug, subjects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cnnbench.figures.canvas import Canvas
    from cnnbench.figures.subject import Subject
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


@dataclass(frozen=True)
class _Maker:
    """One kind of figure, of data of its own type.

    Attributes:
        key: template of its figures' keys: of the data ``d`` and their number.
        title: template of their headings: of the subject ``s`` and the data.
        data: what there is to draw for a subject: one, several or none.
        caption: from subject and data.
        alt: likewise.
        draw: from the data.
    """

    key: str
    title: str
    data: Callable[[Subject], Any]
    caption: Callable[[Subject, Any], str]
    alt: Callable[[Subject, Any], str]
    draw: Callable[[Any], Canvas]


def _told(alt: Callable[[Any], str]) -> Callable[[Subject, Any], str]:
    """An alternative text that the data alone tell."""
    return lambda _, found: alt(found)


_MAKERS: Final = (
    # What arms gain, what it costs, and the trials behind it.
    _Maker(
        "forest",
        "Differences in {s.primary.label}",
        forest.data,
        forest.caption,
        lambda subject, _: f"Forest plot. {findings(subject)}",
        forest.draw,
    ),
    _Maker(
        "pareto-{d.key}",
        "{d.quality_name} against {d.cost_name}",
        pareto.data,
        pareto.caption,
        _told(pareto.alt),
        pareto_plot.draw,
    ),
    _Maker("seeds", "{d.name} of every seed", seeds.data, seeds.caption, _told(seeds.alt), seeds.draw),
    # What factorial and cumulative designs tell beside that.
    _Maker(
        "interactions-{number}",
        "{s.primary.label} by {d.name}",
        interactions.data,
        interactions.caption,
        _told(interactions.alt),
        interactions.draw,
    ),
    _Maker("steps", "{s.primary.label} step by step", steps.data, steps.caption, _told(steps.alt), steps.draw),
    # How training went, and where the networks err.
    _Maker("curves", "Learning curves", curves.data, curves.caption, _told(curves.alt), curves_plot.draw),
    _Maker(
        "confusion",
        "Confusion matrices",
        confusion.data,
        confusion.caption,
        _told(confusion.alt),
        confusion_plot.draw,
    ),
    _Maker(
        "classes",
        "Recall by class",
        confusion.by_class,
        confusion.class_caption,
        _told(confusion.class_alt),
        confusion_plot.draw_classes,
    ),
)
"""In reading order."""


def _of(subject: Subject) -> Iterator[Figure]:
    for maker in _MAKERS:
        found = maker.data(subject)
        several = found if isinstance(found, list) else [] if found is None else [found]
        for number, data in enumerate(several, 1):
            yield figure(
                slug(maker.key.format(d=data, number=number)) + subject.tail,
                maker.title.format(s=subject, d=data) + subject.on,
                maker.caption(subject, data),
                maker.alt(subject, data),
                partial(maker.draw, data),
            )
