"""Intervals for one or two seeds: those that the sessions themselves gave, as seeds are too few for one over them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cnnbench.ratios import FEWEST_SEEDS
from cnnbench.stats.intervals import Estimate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TIMED = re.compile(r"(latency)_b(\d+)_ms|(throughput)_b(\d+)")
_ENERGY = "energy_inference_mj"
_CO2 = "co2_inference_ug"


def has_own(key: str) -> bool:
    """Whether a quantity is a median of many samples or windows, whose own interval the records keep."""
    return key in {_ENERGY, _CO2} or _TIMED.fullmatch(key) is not None


def of_measuring(key: str, value: Estimate) -> bool:
    """Whether a value's interval is that of measuring alone, see ``over_sessions``, and not one over seeds."""
    return has_own(key) and value.n < FEWEST_SEEDS


def over_sessions(records: Iterable[Mapping[str, Any]], key: str) -> Estimate | None:
    """A quantity's mean over one or two seeds, with the span of their sessions' own intervals.

    That of a median latency, and of the throughput made of it, is the 95 % interval of its samples; that of an energy,
    and of the CO2 made of it, the range of its windows.

    Args:
        records: the arm's, those that are ok.
        key: one that ``has_own``.

    Returns:
        None where no record has a value; without ends where one of them has no interval.
    """
    values: list[float] = []
    ends: list[tuple[float, float] | None] = []
    for record in records:
        value = (record.get("metrics") or {}).get(key)
        if isinstance(value, int | float):
            values.append(float(value))
            ends.append(_ends(record, key))
    if not values:
        return None
    mean = sum(values) / len(values)
    known = [end for end in ends if end is not None]
    if len(known) < len(ends):
        return Estimate(mean, None, None, len(values))
    return Estimate(mean, min(low for low, _ in known), max(high for _, high in known), len(values))


def _ends(record: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    details = record.get("details") or {}
    if timed := _TIMED.fullmatch(key):
        size = timed[2] or timed[4]
        ends = ((details.get("latency") or {}).get(size) or {}).get("interval_ms")
        if not ends:
            return None
        low, high = map(float, ends)
        return (low, high) if timed[1] else (1000 * int(size) / high, 1000 * int(size) / low)
    ends = (details.get("energy") or {}).get("range_mj")
    if not ends:
        return None
    low, high = map(float, ends)
    if key == _ENERGY:
        return low, high
    metrics = record["metrics"]
    if not metrics.get(_ENERGY):
        return None
    scale = metrics[key] / metrics[_ENERGY]  # of the grid
    return scale * low, scale * high
