"""Limits of axes: one arm that fails badly must not squeeze the rest into a line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    Span = tuple[float, float, float]

_SQUEEZED = 0.3
"""Where a value would leave the nearer ones less than this share of the axis, it and all beyond are left out."""
_MOST_OUT = 1 / 3
_ROOM = 0.06


def window(spans: Sequence[Span], always: Sequence[float] = ()) -> tuple[float, float]:
    """Low and high limits that hold all spans, or all but those that would squeeze the others; with some room.

    At most a third is left out, the farthest from the median first. What is left out is drawn as an arrow at the edge.

    Args:
        spans: value, low and high end of its interval; nan for ends that are not there, and for no value.
        always: values that must be within.
    """
    known = [span for span in spans if math.isfinite(span[0])]
    if not known:
        known = [(value, value, value) for value in always] or [(0.0, 0.0, 1.0)]
    middle = float(np.median([span[0] for span in known]))
    known.sort(key=lambda span: abs(span[0] - middle))
    low, high = _ends(known, always)
    for out in range(1, int(len(known) * _MOST_OUT) + 1):
        near, wider = _ends(known[:-out], always), _ends(known[: len(known) - out + 1], always)
        if 0 < near[1] - near[0] < _SQUEEZED * (wider[1] - wider[0]):
            low, high = near
    if low == high:
        pad = abs(low) * 0.1 or 1.0
        return low - pad, high + pad
    room = _ROOM * (high - low)
    return low - room, high + room


def log_window(spans: Sequence[Span], always: Sequence[float] = ()) -> tuple[float, float]:
    """``window`` on a logarithmic axis; all values are above 0."""
    logs = [tuple(math.log(end) if end > 0 else math.nan for end in span) for span in spans]
    low, high = window([(mean, low, high) for mean, low, high in logs], [math.log(value) for value in always])
    return math.exp(low), math.exp(high)


def wide(values: Sequence[float]) -> bool:
    """Whether values ask for a logarithmic axis: all above 0, the largest eight times the smallest."""
    known = [value for value in values if math.isfinite(value)]
    return bool(known) and min(known) > 0 and max(known) >= 8 * min(known)


def _ends(spans: Sequence[Span], always: Sequence[float]) -> tuple[float, float]:
    ends = [end for span in spans for end in span if math.isfinite(end)]
    return min([*ends, *always]), max([*ends, *always])
