"""A machine that is slower in a later session is in medians and not in paired ratios: no effect may come of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnbench import aggregate
from cnnbench.contrasts import differences, families
from cnnbench.effects import interactions, sheets
from cnnbench.figures import steps
from cnnbench.figures.make import make_figures
from cnnbench.figures.subject import subjects
from cnnbench.frame import by_dataset, current
from cnnbench.quantities import quantities
from cnnbench.tables import make_report

_spec = importlib.util.spec_from_file_location("designed_records", Path(__file__).with_name("designed_records.py"))
_helper = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_helper)

WOBBLE = np.random.default_rng(5).normal(0, 0.002, (3, 2, 5))
COLUMNS = quantities(["latency", "throughput"], [1])


def records(
    kind: str = "factorial", effect: float = 1.0, primary: str = "latency", **heading: Any
) -> list[dict[str, Any]]:
    """Arms of the first axis' second level were sampled in a session that was 20 % slower, their reference with them.

    What the arm itself takes is ``effect`` times as long.
    """

    def timed(cell: tuple[int, ...], seed: int) -> dict[str, float]:
        ratio = effect ** cell[0] * (1 + (WOBBLE[cell][seed] if any(cell) else 0))
        return {
            "latency_b1_ms": 10 * (1.2 if cell[0] else 1.0) * ratio,
            "throughput_b1": 100 / (1.2 if cell[0] else 1.0) / ratio,
            "latency_b1_ratio": ratio,
        }

    measure = {"primary": primary, "metrics": ["latency", "throughput"], "latency": {"batch_sizes": [1]}}
    return _helper.designed(kind, {"a": ["x", "y"], "b": ["u", "v"]}, timed, measure=measure, **heading)


@pytest.mark.parametrize("primary", ["latency", "throughput"])
def test_no_effect_of_the_session(primary: str) -> None:
    found = families(current(records(primary=primary)), quantities([primary], [1]))
    for family in ("effects", "interactions"):
        for effect in found[family]:
            (judgement,) = effect.judgements.values()
            assert judgement.verdict == "equivalent", (family, effect.name)
            assert abs(judgement.difference.mean) < 0.005


@pytest.mark.parametrize("primary", ["latency", "throughput"])
def test_an_effect_of_the_arm_is_found_with_its_size(primary: str) -> None:
    (effect, _) = families(current(records(effect=1.1, primary=primary)), quantities([primary], [1]))["effects"]
    (judgement,) = effect.judgements.values()
    assert judgement.verdict == "worse"
    assert np.exp(judgement.difference.mean) == pytest.approx(1.1 if primary == "latency" else 1 / 1.1, rel=0.005)


def test_steps_through_a_chain_of_references() -> None:
    """The second step's ratio is to the arm before it, which is itself a ratio to the baseline."""
    found = records("cumulative", effect=1.1)
    for record in found:
        if record["arm"] == "arm 11":
            record["reference"] = "arm 10"
            record["metrics"]["latency_b1_ratio"] = 1.0 + WOBBLE[1][1][record["seed"]]
    first, second = families(current(found), COLUMNS)["steps"]
    assert first.judgements["latency_b1_ms"].verdict == "worse"
    assert second.judgements["latency_b1_ms"].verdict == "equivalent"


def test_what_no_ratio_was_taken_of_is_not_judged() -> None:
    found = records()
    for record in found:
        del record["metrics"]["latency_b1_ratio"]
    (sheet, _) = sheets(current(found), COLUMNS)
    assert {cell.text for column in sheet.columns[2:4] for cell in column.cells} == {"–"}
    assert any("no value" in note for note in sheet.notes)


def test_the_spread_that_a_plan_goes_by_is_that_of_ratios() -> None:
    """Sessions of other seeds that were slower would pass for spread."""
    found = records(primary="throughput")
    for record in found:
        if record["arm"] != "baseline":
            record["metrics"]["throughput_b1"] *= 1 + record["seed"] / 10
    for own in differences(current(found), "effects", COLUMNS[1]):
        assert own.std() < 0.005


def many(effect: float, primary: str) -> list[dict[str, Any]]:
    planned = {"arms": ["baseline", "arm 10"], "seeds": list(range(5)), "datasets": ["one", "two", "three"]}
    return [
        {**record, "dataset": label, "planned": planned, "design": None}
        for label in planned["datasets"]
        for record in records(effect=effect, primary=primary)
        if record["arm"] in planned["arms"]
    ]


@pytest.mark.parametrize("primary", ["latency", "throughput"])
def test_over_datasets(primary: str) -> None:
    """The arm takes 0.9 of the time; its sessions make it 1.08 in the medians."""
    found = aggregate.aggregate(by_dataset(many(0.9, primary)))
    _, row = found.rows
    expected = 0.9 if primary == "latency" else 1 / 0.9
    assert np.exp(row.difference.mean) == pytest.approx(expected, rel=0.005)
    assert (row.rank, row.wins.mean) == (1.0, 1.0)
    assert row.counts == {"better": 3}


def test_plots_are_of_ratios_too() -> None:
    (pair,) = interactions(current(records()))
    assert [np.exp(cell.mean) for row in pair.means for cell in row] == pytest.approx([1.0] * 4, abs=0.005)
    for kind, key in (("factorial", "interactions"), ("cumulative", "steps")):
        found = records(kind)
        (figure,) = [f for f in make_figures(make_report(found), found) if f.key.startswith(key)]
        assert "as a ratio to" in figure.svg
        assert "(×0.99" in figure.alt or "(×1.00" in figure.alt
        assert " ms" not in figure.alt + figure.caption
        assert "ratio to" in figure.caption


def test_steps_are_drawn_where_their_ratios_lead() -> None:
    found = records("cumulative", effect=1.1)
    report = make_report(found)
    stairs = steps.data(subjects(report.tables, found)[0])
    assert [step.mean for step in stairs.steps] == pytest.approx([1.0, 1.1, 1.1], rel=0.005)
    canvas = steps.draw(stairs)
    low, high = canvas.figure.axes[0].get_xlim()
    assert low < 1.0 < high  # where the first stands is no outlier, however sure the others are
