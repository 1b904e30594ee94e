from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest

from cnnbench import carbon
from cnnbench.carbon import KEYS, WORLD, co2, intensity
from cnnbench.errors import UsageError
from cnnbench.quantities import quantities
from cnnbench.types import EnergyOptions

FRANCE = EnergyOptions(intensity=56.0, intensity_source="RTE 2024, France")


def test_grams_from_joules() -> None:
    # 3.6 MJ are a kWh: at 56 g/kWh that is 56 g.
    found = co2({"energy_train_j": 3.6e6, "energy_inference_mj": 3.6e6 * 1e3}, {}, FRANCE)
    assert found.metrics == pytest.approx({"co2_train_mg": 56e3, "co2_inference_ug": 56e6})
    assert found.intensity == {"g_per_kwh": 56.0, "source": "RTE 2024, France"}


def test_an_estimates_co2_is_an_estimate() -> None:
    metrics = {"energy_train_j": 1.0, "energy_inference_mj": 1.0, "accuracy": 0.9}
    methods = {"energy_train_j": "measured", "energy_inference_mj": "estimated", "size_bytes": "nominal"}
    assert co2(metrics, methods, FRANCE).methods == {"co2_train_mg": "measured", "co2_inference_ug": "estimated"}


def test_no_energy_no_co2_and_one_energy_one() -> None:
    assert co2({"accuracy": 0.9}, {}, FRANCE) == carbon.Carbon()
    found = co2({"energy_inference_mj": -1.0}, {"energy_inference_mj": "measured"}, FRANCE)
    assert set(found.metrics) == set(found.methods) == {"co2_inference_ug"}
    assert found.metrics["co2_inference_ug"] < 0  # as its energy


def test_the_columns_are_what_is_recorded() -> None:
    columns = {q.key: q.stage for q in quantities(("co2", "co2_train", "energy", "energy_train"), ())}
    assert columns == {
        "co2_inference_ug": "energy",
        "co2_train_mg": "train",
        "energy_inference_mj": "energy",
        "energy_train_j": "train",
    }
    assert set(columns) == {*KEYS, *KEYS.values()}


def test_the_grid_is_the_worlds_unless_named() -> None:
    assert intensity(EnergyOptions()) == WORLD
    assert intensity(FRANCE).plain() == {"g_per_kwh": 56.0, "source": "RTE 2024, France"}
    assert intensity(EnergyOptions(intensity=0, intensity_source="own solar panels, 2026")).g_per_kwh == 0


def test_codecarbons_world_average_is_the_same() -> None:
    from pathlib import Path

    import codecarbon

    file = Path(codecarbon.__file__).parent / "data" / "private_infra" / "carbon_intensity_per_source.json"
    table = json.loads(file.read_text())
    assert table["world_average"] == WORLD.g_per_kwh
    assert "global-energy-co2-status-report-2019" in table["world_average_source"]


def test_a_countrys_intensity_is_that_which_codecarbon_uses() -> None:
    from codecarbon.core.emissions import Emissions
    from codecarbon.core.units import Energy
    from codecarbon.external.geography import GeoMetadata
    from codecarbon.input import DataSource

    emissions = Emissions(DataSource())
    for code, name in (("FRA", "France"), ("POL", "Poland"), ("IND", "India")):
        found = intensity(EnergyOptions(country=code))
        kilograms = emissions.get_country_emissions(Energy.from_energy(kWh=1), GeoMetadata(code, name))
        assert found.g_per_kwh == pytest.approx(1000 * kilograms), code
        version = importlib.metadata.version("codecarbon")
        assert found.source.startswith(f"{name}, 20"), found.source
        assert found.source.endswith(f", table of codecarbon {version}")


@pytest.mark.parametrize(
    ("country", "hint"),
    [
        ("fra", "did you mean 'FRA'?"),
        ("France", "did you mean 'FRA'?"),
        ("FRZ", "did you mean "),
        ("Atlantis", "'Atlantis'"),
    ],
)
def test_an_unknown_country(country, hint) -> None:
    with pytest.raises(UsageError) as raised:
        intensity(EnergyOptions(country=country))
    assert str(raised.value).startswith(f"expected a country's three letters, e.g. 'FRA', got {country!r}")
    assert hint in str(raised.value)
    assert not str(raised.value).endswith(": ")


def test_a_table_that_moved(monkeypatch) -> None:
    monkeypatch.setattr(carbon, "find_spec", lambda _name: None)
    carbon._countries.cache_clear()
    try:
        with pytest.raises(UsageError, match="give intensity and intensity_source instead of country"):
            intensity(EnergyOptions(country="FRA"))
        assert intensity(EnergyOptions()) == WORLD
    finally:
        carbon._countries.cache_clear()


def test_codecarbon_is_not_imported_for_it() -> None:
    code = (
        "import sys; from cnnbench.carbon import intensity; from cnnbench.types import EnergyOptions; "
        "intensity(EnergyOptions(country='FRA')); print({'codecarbon', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Options that do not go together


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"source": "constant"}, "needs the power of the work in watts"),
        ({"source": "constant", "watts": {}}, "needs the power of the work in watts"),
        ({"watts": 15.0}, "watts go with source = 'constant', got source = 'auto'"),
        ({"intensity": 56.0}, "an intensity needs its source"),
        ({"intensity": 56.0, "intensity_source": " "}, "an intensity needs its source"),
        ({"intensity": 56.0, "intensity_source": "RTE", "country": "FRA"}, "got both"),
        ({"intensity_source": "RTE"}, "which is missing"),
    ],
)
def test_options_that_do_not_go_together(options, expected) -> None:
    with pytest.raises(ValueError, match=expected):
        EnergyOptions(**options)


def test_the_grid_does_not_decide_how_energy_is_taken() -> None:
    assert FRANCE.taking() == EnergyOptions(country="USA").taking() == EnergyOptions().taking()
    other = EnergyOptions(source="constant", watts={"cpu": 15.0})
    assert EnergyOptions(**other.taking()) == other
    assert other.taking() != EnergyOptions(source="constant", watts={"cpu": 16.0}).taking()
