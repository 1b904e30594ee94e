"""A history as a picture, by matplotlib. Equal histories give equal SVG files."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, Final

from cnnbench.figures.style import INK, SERIES
from cnnbench.numerals import scale
from cnnbench.text import printable, wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnbench.history import History, Moment, Series
    from cnnbench.stats.intervals import Estimate

COLOURS: Final = tuple(colour.light for colour in (*SERIES[:4], INK, *SERIES[4:]))
"""Those of a report's figures; told apart by the colour-blind as well."""
_LINES: Final = ("-", "--", ":")
_MARKERS: Final = "osD^vPX"
_MOST_TICKS: Final = 24
_LEGEND_CELLS: Final = 26
# Any: the package types its settings, where it is there.
_STYLE: Final[Any] = {
    "svg.hashsalt": "cnnbench",
    "svg.fonttype": "path",
    "text.parse_math": False,  # names are names, also with a dollar in them
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
}


def draw(found: History, kind: str) -> bytes:
    """The picture: a panel for each quantity, a colour for each arm, a marker for each machine, hollow for estimates.

    Args:
        found: what to draw.
        kind: ``svg`` or ``png``.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    arms = list(dict.fromkeys(map(_arm, found.series)))
    machines = list(dict.fromkeys(one.machine for one in found.series))
    quantities = list(dict.fromkeys(one.quantity for one in found.series))
    places = {moment: place for place, moment in enumerate(found.moments)}
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in a script without a font
        width = min(16.0, max(8.0, 3.5 + 0.4 * len(places)))
        figure = Figure(figsize=(width, 1.2 + 2.6 * len(quantities)), layout="constrained")
        panels = figure.subplots(len(quantities), 1, sharex=True, squeeze=False)[:, 0]
        for panel, quantity in zip(panels, quantities, strict=True):
            some = [one for one in found.series if one.quantity == quantity]
            shown = scale(quantity, (e.mean for one in some for e in one.points.values()))
            for one in some:
                place = arms.index(_arm(one))
                # Side by side, so that the intervals of one revision do not hide each other.
                aside = 0.0 if len(arms) == 1 else 0.3 * (place / (len(arms) - 1) - 0.5)
                points = [(places[moment] + aside, e) for moment, e in one.points.items()]
                _line(panel, points, shown.factor, **_look(one, place, machines))
            panel.set_ylabel(f"{quantity.label} [{shown.unit}]" if shown.unit else quantity.label)
        _revisions(panels[-1], found.moments)
        handles = _legend(found.series, arms, machines)
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9, handlelength=2.5)
        figure.suptitle(
            f"{printable(found.suite)}: what each revision measured, with 95 % intervals",
            x=0.01,
            ha="left",
            fontsize=12,
        )
        out = io.BytesIO()
        figure.savefig(out, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return out.getvalue()


def _arm(one: Series) -> tuple[str, str]:
    """What has a colour of its own: an arm, by one method."""
    return one.arm, one.mark


def _look(one: Series, place: int, machines: Sequence[str]) -> dict[str, Any]:
    colour = COLOURS[place % len(COLOURS)]
    return {
        "color": colour,
        "linestyle": _LINES[place // len(COLOURS) % len(_LINES)],
        "marker": _MARKERS[machines.index(one.machine) % len(_MARKERS)],
        "markerfacecolor": "white" if one.mark == "est." else colour,
        "markersize": 5,
        "linewidth": 1.2,
    }


def _line(panel: Any, points: Sequence[tuple[float, Estimate]], factor: float, **look: Any) -> None:
    panel.errorbar(
        [x for x, _ in points],
        [e.mean * factor for _, e in points],
        yerr=[
            [0.0 if e.low is None else max(0.0, e.mean - e.low) * factor for _, e in points],
            [0.0 if e.high is None else max(0.0, e.high - e.mean) * factor for _, e in points],
        ],
        elinewidth=0.9,
        capsize=2.5,
        **look,
    )


def _revisions(panel: Any, moments: Sequence[Moment]) -> None:
    """Revision and day under the lowest panel; of many every so many-th."""
    step = -(-len(moments) // _MOST_TICKS)
    ticks = list(range(0, len(moments), step))
    names = [printable(f"{moments[t].revision[:8]} {moments[t].started[:10]}") for t in ticks]
    panel.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    panel.set_xlim(-0.5, len(moments) - 0.5)
    panel.set_xlabel("revision, in the order of running")


def _legend(series: Sequence[Series], arms: Sequence[tuple[str, str]], machines: Sequence[str]) -> list[Any]:
    """Arms by colour, then machines by marker where there are several."""
    from matplotlib.lines import Line2D

    handles = []
    for place, (arm, mark) in enumerate(arms):
        one = next(one for one in series if _arm(one) == (arm, mark))
        handles.append(Line2D([], [], label=_name(f"{arm} {mark}".rstrip()), **_look(one, place, machines)))
    if len(machines) > 1:
        for place, machine in enumerate(machines):
            marker = _MARKERS[place % len(_MARKERS)]
            handles.append(Line2D([], [], label=_name(machine), color="#666666", marker=marker, linestyle="none"))
    return handles


def _name(label: str) -> str:
    """A label over as many lines as it needs; matplotlib hides those that begin with an underscore."""
    text = "\n".join(wrapped(printable(label), _LEGEND_CELLS))
    return f" {text}" if text.startswith("_") else text
