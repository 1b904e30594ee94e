"""What figures look like: colours for light and dark, markers, sizes, matplotlib's settings.

Figures are drawn with the light colours. In an SVG each of them then becomes a CSS variable that has the dark colour in
dark mode, see ``svg``; hence no two may be equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Colour:
    """One colour.

    Attributes:
        name: of its CSS variable, ``--figure-NAME``.
        light: on a light page, ``#rrggbb``.
        dark: on a dark page.
    """

    name: str
    light: str
    dark: str


PAPER: Final = Colour("paper", "#ffffff", "#16161a")
INK: Final = Colour("ink", "#1b1b1f", "#ececf1")
SOFT: Final = Colour("soft", "#5a5a64", "#b0b0bb")
GRID: Final = Colour("grid", "#e2e2e7", "#35353d")
SHADE: Final = Colour("shade", "#eeeef2", "#27272e")
# Hues of Okabe and Ito (2008), which the colour-blind tell apart; darker on white and lighter on black than theirs
# where that takes a contrast of 3 to 1.
BLUE: Final = Colour("blue", "#0072b2", "#5aaef0")
VERMILLION: Final = Colour("vermillion", "#d55e00", "#f57f3b")
GREEN: Final = Colour("green", "#00875f", "#2cc295")
PURPLE: Final = Colour("purple", "#b3588c", "#e09cc4")
ORANGE: Final = Colour("orange", "#b07400", "#f0b232")
SKY: Final = Colour("sky", "#2b8cc4", "#9ad6f7")
GREY: Final = Colour("grey", "#73737d", "#9b9ba6")

COLOURS: Final = (PAPER, INK, SOFT, GRID, SHADE, BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY)
SERIES: Final = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
"""For lines that are told apart by colour; dashes and markers differ as well."""
DASHES: Final = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (8, 2)), (0, (1, 1.2)))
MARKERS: Final = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True)
class Look:
    """How a verdict is drawn; shape and filling tell it without the colour.

    Attributes:
        marker: matplotlib's name of the shape.
        colour: of line and shape.
        hollow: whether the shape is not filled.
        sign: beside numbers, as in tables.
    """

    marker: str
    colour: Colour
    hollow: bool = False
    sign: str = ""


LOOKS: Final = {
    "better": Look("^", BLUE, sign="▲"),
    "worse": Look("v", VERMILLION, sign="▼"),
    "equivalent": Look("s", GREEN, sign="≈"),
    "unresolved": Look("o", GREY, hollow=True),
    "placebo": Look("x", SOFT),
}

WIDTH: Final = 440.0
"""Of every figure, in units of its view box. A phone shows it at three quarters of its size."""
EDGE: Final = 8.0
"""Room around."""
RIGHT: Final = WIDTH - EDGE
TEXT: Final = 12.0
SMALL: Final = 11.5
LINE: Final = 14.5
"""From one line of text to the next."""

# Any: matplotlib types its settings as a closed set of names.
SETTINGS: Final[Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names are names, also with a dollar in them
    "font.family": ["DejaVu Sans"],
    "font.size": SMALL,
    "axes.linewidth": 0.8,
    "axes.edgecolor": SOFT.light,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
    "xtick.color": SOFT.light,
    "ytick.color": SOFT.light,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "grid.color": GRID.light,
    "grid.linewidth": 0.7,
    "lines.solid_capstyle": "round",
    "figure.facecolor": PAPER.light,
}
