"""A finished figure: words and pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cnnbench.figures.canvas import rendered
from cnnbench.figures.svg import finished

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnbench.figures.canvas import Canvas


@dataclass(frozen=True)
class Figure:
    """One figure of a report.

    Attributes:
        key: ``forest``, ``pareto-size-bytes`` ...; lower-case letters, digits and hyphens, other for every figure of a
            report. Files, anchors and the ids within the SVG are named by it.
        title: a heading.
        caption: what is drawn, in sentences.
        alt: what is to be seen, in sentences.
        svg: one ``<svg>`` element, for a file of its own as well as for a page; its colours follow the reader's light
            or dark mode, or the page's CSS variables ``--figure-ink`` and the like (``style.COLOURS``).
        draw: makes the drawing again.
    """

    key: str
    title: str
    caption: str
    alt: str
    svg: str
    draw: Callable[[], Canvas] = field(repr=False, compare=False)

    def _repr_svg_(self) -> str:
        """For notebooks."""
        return self.svg

    def png(self) -> bytes:
        """The same picture with the light colours, at 200 dots an inch."""
        return rendered(self.draw, "png", self.key)


def figure(key: str, title: str, caption: str, alt: str, draw: Callable[[], Canvas]) -> Figure:
    """A figure with its SVG drawn.

    Args:
        key: names files, anchors and ids.
        title: a heading.
        caption: what is drawn.
        alt: what is to be seen.
        draw: makes the drawing.
    """
    identity = f"plot-{key}"
    svg = finished(rendered(draw, "svg", identity).decode(), identity, title, alt)
    return Figure(key, title, caption, alt, svg, draw)
