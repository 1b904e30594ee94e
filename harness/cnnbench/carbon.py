"""Grams of CO2 from joules and the carbon intensity of a grid.

They only scale the energy, so they are worked out when a trial is recorded: another grid measures nothing anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.errors import UsageError
from cnnbench.registry import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnnbench.types import EnergyOptions

KEYS = {"energy_inference_mj": "co2_inference_ug", "energy_train_j": "co2_train_mg"}
"""Each energy with its CO2: mJ gives µg, J gives mg, by one factor."""
PER_KWH = 3600.0
"""g/kWh x J / 3600 = mg, since a kWh is 3.6e6 J."""


@dataclass(frozen=True)
class Intensity:
    """What a grid emits.

    Attributes:
        g_per_kwh: grams of CO2 equivalent for a kWh.
        source: where the number comes from, with its year as far as that is known.
    """

    g_per_kwh: float
    source: str

    def plain(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"g_per_kwh": self.g_per_kwh, "source": self.source}


WORLD = Intensity(475.0, "world average of 2018, IEA Global Energy & CO2 Status Report 2019")


@dataclass(frozen=True)
class Carbon:
    """CO2 for a record.

    Attributes:
        metrics: ``co2_inference_ug`` (µg an image) and ``co2_train_mg``, for the energies that there are.
        methods: each that of its energy.
        intensity: what they were worked out with, JSON-ready; empty where there are none.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)
    intensity: dict[str, Any] = field(default_factory=dict)


def co2(metrics: Mapping[str, float], methods: Mapping[str, str], options: EnergyOptions) -> Carbon:
    """CO2 of the energies among a record's metrics; nothing else of the record matters.

    Args:
        metrics: a record's.
        methods: a record's; an energy that has none there gives CO2 without one.
        options: the suite's ``country`` or ``intensity``.

    Raises:
        UsageError: there is no such country in codecarbon's table.
    """
    found = {key: metrics[energy] for energy, key in KEYS.items() if energy in metrics}
    if not found:
        return Carbon()
    grid = intensity(options)
    return Carbon(
        {key: energy * grid.g_per_kwh / PER_KWH for key, energy in found.items()},
        {key: methods[energy] for energy, key in KEYS.items() if key in found and energy in methods},
        grid.plain(),
    )


def intensity(options: EnergyOptions) -> Intensity:
    """The grid that a suite names; the world's average where it names none.

    Raises:
        UsageError: there is no such country in codecarbon's table.
    """
    if options.intensity is not None:
        return Intensity(options.intensity, str(options.intensity_source))
    if options.country is None:
        return WORLD
    countries = _countries()
    facts = countries.get(options.country)
    if facts is None:
        by_name = {str(known.get("country_name")).lower(): code for code, known in countries.items()}
        code = by_name.get(options.country.lower(), options.country.upper())
        hint = f"did you mean {code!r}?" if code in countries else nearest(code, countries)
        raise UsageError(
            f"expected a country's three letters, e.g. 'FRA', got {options.country!r}: {hint}".rstrip(": ")
        )
    year = f", {facts['year']}" if "year" in facts else ""
    source = f"{facts.get('country_name', options.country)}{year}, table of codecarbon {version('codecarbon')}"
    return Intensity(float(facts["carbon_intensity"]), source)


@cache
def _countries() -> Mapping[str, Mapping[str, Any]]:
    """The offline table of codecarbon by country code. It is read as a file: importing codecarbon takes a second.

    Raises:
        UsageError: codecarbon is not installed, or keeps its table elsewhere.
    """
    spec = find_spec("codecarbon")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    try:
        file = Path(*folders[:1], "data", "private_infra", "global_energy_mix.json")
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = "codecarbon's table of countries is not where it was"
        raise UsageError(f"{why}: give intensity and intensity_source instead of country") from error
    return {code: facts for code, facts in table.items() if "carbon_intensity" in facts}
