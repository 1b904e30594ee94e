"""Reads ``[measure]``: what a suite measures, and what it reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.carbon import intensity
from cnnbench.errors import UsageError
from cnnbench.expect import show
from cnnbench.options import options_of
from cnnbench.quantities import METRICS
from cnnbench.registry import nearest
from cnnbench.types import EnergyOptions, LatencyOptions, Measure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnnbench.locate import Place
    from cnnbench.reader import Reader
    from cnnbench.registry import Registry

_TABLES = {"latency": LatencyOptions, "energy": EnergyOptions}


def known_metrics(registry: Registry) -> tuple[str, ...]:
    """Every metric that a suite can name: the harness's own, then those of plugins."""
    return (*METRICS, *(name for name in registry.names("metric") if name not in METRICS))


def read_measure(raw: Mapping[str, Any], reader: Reader) -> Measure | None:
    """What ``[measure]`` comes to, or None where it has mistakes, all of them reported."""
    place: Place = ("measure",)
    table = raw.get("measure", {})
    before = len(reader.problems)
    if not isinstance(table, dict):
        reader.report(place, f"expected a table, got {show(table)}")
        return None
    plain = {key: value for key, value in table.items() if key not in _TABLES}
    values = reader.given(options_of(Measure), plain, place, "[measure]")
    for key, cls in _TABLES.items():
        inner = table.get(key, {})
        if isinstance(inner, dict):
            sound = len(reader.problems)
            given = reader.given(options_of(cls), inner, (*place, key), f"measure.{key}")
            if len(reader.problems) > sound:
                continue
            try:
                values[key] = cls(**given)
            except ValueError as error:  # values that don't go together
                reader.report((*place, key), str(error))
        else:
            reader.report((*place, key), f"expected a table, got {show(inner)}")
    _check_names(values, place, reader)
    _check_grid(values, place, reader)
    if len(reader.problems) > before:
        return None
    measure = Measure(**values)
    if measure.primary not in measure.metrics:  # the metric that decides is always in the table
        values["metrics"] = (measure.primary, *measure.metrics)
    return Measure(**values)


def _check_grid(values: Mapping[str, Any], place: Place, reader: Reader) -> None:
    try:
        intensity(values.get("energy", EnergyOptions()))
    except UsageError as error:
        reader.report((*place, "energy", "country"), str(error))


def _check_names(values: Mapping[str, Any], place: Place, reader: Reader) -> None:
    known = known_metrics(reader.registry)
    metrics = values.get("metrics", Measure().metrics)
    primary = values.get("primary", Measure().primary)
    named = [(("primary",), primary), *((("metrics", i), name) for i, name in enumerate(metrics))]
    named += [(("margin", name), name) for name in values.get("margin", ())]
    for where, name in named:
        if name not in known:
            reader.report((*place, *where), f"unknown metric {name!r}: {nearest(name, known)}".rstrip(": "))
        elif where[0] == "margin" and name not in (*metrics, primary):
            reader.report((*place, *where), f"a margin for {name!r}, which measure.metrics does not list")
    sizes = values.get("latency", LatencyOptions()).batch_sizes
    for key, listed in ((("metrics",), metrics), (("latency", "batch_sizes"), sizes)):
        for i, item in enumerate(listed):
            if item in listed[:i]:
                reader.report((*place, *key, i), f"{item!r} is listed twice")
