"""A drawing in the pixels of its view box, from the top left, upon matplotlib's objects."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from cnnbench.figures.style import EDGE, GRID, INK, LINE, PAPER, RIGHT, SETTINGS, SMALL, SOFT, TEXT, WIDTH, Colour
from cnnbench.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Align = Literal["left", "center", "right"]

_DPI = 200
_KEY = 10.0
"""Half the room of a legend's marker."""


@dataclass(frozen=True)
class Key:
    """An entry of a legend.

    Attributes:
        text: beside its mark.
        colour: of its mark.
        marker: matplotlib's name of a shape; empty for none.
        hollow: whether the shape is not filled.
        line: matplotlib's line style; empty for none.
        patch: whether the mark is a filled area.
        width: of the line.
    """

    text: str
    colour: Colour
    marker: str = ""
    hollow: bool = False
    line: Any = ""
    patch: bool = False
    width: float = 1.6


class Canvas:
    """One figure in the making.

    Args:
        height: in pixels of the view box.
        width: likewise.
    """

    def __init__(self, height: float, width: float = WIDTH) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure: Figure = Figure(figsize=(width / 72, height / 72), dpi=72)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes whose plotting area lies there; only the lower spine, and the grid across it."""
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box)
        axes.spines[["left", "top", "right"]].set_visible(False)
        axes.tick_params(labelsize=SMALL)
        return axes

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = TEXT,
        colour: Colour = INK,
        align: Align = "left",
        bold: bool = False,
        turned: bool = False,
    ) -> None:
        """One line of text whose base line lies there; ``turned`` reads upwards."""
        self.figure.text(
            x / self.width,
            1 - y / self.height,
            text,
            size=size,
            color=colour.light,
            ha=align,
            va="baseline",
            weight="bold" if bold else "normal",
            rotation=90 if turned else 0,
            rotation_mode="anchor",
        )

    def lines(self, x: float, middle: float, lines: Sequence[str], *, colour: Colour = INK) -> None:
        """Lines of a name, as a block around a height."""
        first = middle - (len(lines) - 1) * LINE / 2 + 0.36 * TEXT
        for number, line in enumerate(lines):
            self.text(x, first + number * LINE, line, colour=colour)

    def label(self, x: float, y: float, text: str) -> None:
        """An axis's label around a place, moved so far that it lies within the figure."""
        half = breadth(text, SMALL) / 2
        middle = min(max(x, EDGE + half), max(RIGHT - half, self.width / 2))
        self.text(middle, y, text, size=SMALL, align="center")

    def rule(self, x: tuple[float, float], y: tuple[float, float], colour: Colour = GRID, width: float = 0.8) -> None:
        """A straight line."""
        from matplotlib.lines import Line2D

        ends = [x[0] / self.width, x[1] / self.width], [1 - y[0] / self.height, 1 - y[1] / self.height]
        self.figure.add_artist(Line2D(*ends, color=colour.light, linewidth=width))

    def legend(self, x: float, y: float, rows: Sequence[Sequence[tuple[float, Key]]]) -> None:
        """Keys as ``legend_rows`` laid them out; ``y`` is the first row's base line."""
        from matplotlib.lines import Line2D
        from matplotlib.patches import Rectangle

        for number, row in enumerate(rows):
            base = y + number * LINE
            level = 1 - (base - 0.36 * SMALL) / self.height
            for offset, key in row:
                left = x + offset
                if key.patch:
                    size = (2 * _KEY - 4) / self.width, 8 / self.height
                    corner = (left / self.width, level - size[1] / 2)
                    self.figure.add_artist(Rectangle(corner, *size, facecolor=key.colour.light, linewidth=0))
                else:
                    if key.line:
                        ends = [left / self.width, (left + 2 * _KEY - 4) / self.width]
                        line = Line2D(ends, [level] * 2, color=key.colour.light, linewidth=key.width)
                        line.set_linestyle(key.line)
                        self.figure.add_artist(line)
                    if key.marker:
                        look = marked(key.marker, key.colour, hollow=key.hollow)
                        self.figure.add_artist(Line2D([(left + _KEY - 2) / self.width], [level], **look))
                self.text(left + 2 * _KEY, base, key.text, size=SMALL, colour=SOFT)


def marked(
    marker: str, colour: Colour, *, hollow: bool = False, size: float = 6.5, edge: float = 1.6
) -> dict[str, Any]:
    """Settings of matplotlib for a shape: filled, hollow, or of lines alone."""
    return {
        "color": colour.light,
        "marker": marker,
        "markersize": size * (0.9 if marker in {"s", "D"} else 1.0),
        "markerfacecolor": PAPER.light if hollow else colour.light,
        "markeredgecolor": colour.light,
        "markeredgewidth": edge if hollow or marker in {"x", "|"} else 0.0,
    }


def plain_log(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis, neither powers of ten nor too many."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = axis.get_view_interval()
    if high / low < 4:
        axis.set_major_locator(MaxNLocator(5))
    else:
        axis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 3000 else (1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace(",", "\u2009")))
    axis.set_minor_formatter(NullFormatter())


def legend_rows(keys: Iterable[Key], width: float = RIGHT - EDGE) -> list[list[tuple[float, Key]]]:
    """The keys in rows of at most the width, each with its distance from the left."""
    rows: list[list[tuple[float, Key]]] = [[]]
    place = 0.0
    for key in keys:
        room = 2 * _KEY + breadth(key.text, SMALL) + 12
        if rows[-1] and place + room - 12 > width:
            rows.append([])
            place = 0.0
        rows[-1].append((place, key))
        place += room
    return rows


@lru_cache(maxsize=4096)
def breadth(text: str, size: float = TEXT, *, bold: bool = False) -> float:
    """Width of a line of text in pixels, in the font of the PNG, which is wider than most."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        width, _, _ = TextToPath().get_text_width_height_descent(text, font, ismath=False)
    return float(width)


def folded(text: str, width: float, size: float = TEXT, most: int = 3) -> list[str]:
    """A name as lines of at most the width; what is beyond ``most`` lines ends in an ellipsis.

    Breaks at spaces, else after punctuation, else anywhere.
    """
    lines: list[str] = []
    rest = printable(text)
    while rest and len(lines) < most:
        last = len(lines) == most - 1
        fits = _fitting(rest, width, size, "…" if last else "")
        if fits == len(rest) or last:
            lines.append(rest if fits == len(rest) else rest[:fits].rstrip() + "…")
            break
        cut = rest.rfind(" ", 0, fits + 1)
        if cut <= 0:
            cut = max(rest.rfind(mark, 0, fits) + 1 for mark in "=,-_/+(.")
        cut = cut if cut > 1 else fits
        lines.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return lines or [""]


def _fitting(text: str, width: float, size: float, end: str) -> int:
    """How many characters fit, at least one; those that are not all leave room for ``end``."""
    if breadth(text, size) <= width:
        return len(text)
    low, high = 1, len(text)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if breadth(text[:middle] + end, size) <= width else (low, middle)
    return low


def rendered(draw: Callable[[], Canvas], kind: Literal["svg", "png"], salt: str) -> bytes:
    """The bytes of what ``draw`` makes, the same for the same drawing.

    Args:
        draw: makes the drawing; called under matplotlib's settings of ``style``.
        kind: format.
        salt: what the ids within an SVG are made from.
    """
    import matplotlib as mpl

    with mpl.rc_context({**SETTINGS, "svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in a script without a font
        out = io.BytesIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None} if kind == "svg" else {"Software": None}
        draw().figure.savefig(out, format=kind, dpi=_DPI, metadata=nothing)
    return out.getvalue()
