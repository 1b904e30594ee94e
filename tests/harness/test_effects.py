"""Effects, interactions and steps from records, as judgements, as sheets and for plots."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_1samp, ttest_rel
from statsmodels.stats.multitest import multipletests

from cnnbench.contrasts import families
from cnnbench.effects import interactions, sheets
from cnnbench.frame import current
from cnnbench.keys import Place
from cnnbench.ledger import Ledger
from cnnbench.plan import make_plan
from cnnbench.plugins import PluginHost
from cnnbench.quantities import quantities
from cnnbench.store import Store
from cnnbench.suite import parse

_spec = importlib.util.spec_from_file_location("designed_records", Path(__file__).with_name("designed_records.py"))
_helper = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_helper)
designed = _helper.designed

AXES = {"recipe.batch_size": ["64", "16", "4"], "norm": ["batch", "group"]}
COLUMNS = quantities(["accuracy", "f1_macro", "params", "latency"], [1])
NOISE = np.random.default_rng(3).normal(0, 0.002, (3, 2, 5))


def outcome(cell, seed):
    """Small batches and group norm each lose 2 points; with group norm the smallest batches lose nothing."""
    batch, norm = cell
    accuracy = 0.9 + 0.01 * seed - 0.02 * (batch == 2) - 0.02 * norm + 0.02 * (cell == (2, 1))
    accuracy += NOISE[batch, norm, seed]
    return {"accuracy": accuracy, "f1_macro": 1 - 2 * (1 - accuracy), "params": 1000.0, "latency_b1_ms": 1.0}


def sheet_of(records, key):
    (found,) = [sheet for sheet in sheets(current(records), COLUMNS) if sheet.key == key]
    return found


def texts(sheet, label):
    (column,) = [column for column in sheet.columns if column.label == label]
    return [cell.text for cell in column.cells]


def test_main_effects_average_over_the_other_axis_and_are_corrected_together():
    by_cell = np.array([[[outcome((i, j), s)["accuracy"] for s in range(5)] for j in (0, 1)] for i in range(3)])
    levels = by_cell.mean(axis=1)
    expected = [levels[1] - levels[0], levels[2] - levels[0], by_cell.mean(axis=0)[1] - by_cell.mean(axis=0)[0]]
    found = families(current(designed("factorial", AXES, outcome)), COLUMNS)["effects"]
    assert [effect.name for effect in found] == ["batch_size: 64 → 16", "batch_size: 64 → 4", "norm: batch → group"]
    judged = [effect.judgements["accuracy"] for effect in found]
    assert [j.difference.mean for j in judged] == pytest.approx([values.mean() for values in expected])
    p = [ttest_1samp(values, 0).pvalue for values in expected]
    assert [j.p_adjusted for j in judged] == pytest.approx(multipletests(p, method="holm")[1])
    assert [j.verdict for j in judged] == ["unresolved", "worse", "worse"]


def test_interactions_are_a_family_of_their_own():
    cells = {(i, j): np.array([outcome((i, j), s)["accuracy"] for s in range(5)]) for i in range(3) for j in (0, 1)}
    expected = [cells[i, 1] - cells[i, 0] - cells[0, 1] + cells[0, 0] for i in (1, 2)]
    found = families(current(designed("factorial", AXES, outcome)), COLUMNS)["interactions"]
    assert [effect.name for effect in found] == [
        "batch_size: 64 → 16 × norm: batch → group",
        "batch_size: 64 → 4 × norm: batch → group",
    ]
    judged = [effect.judgements["accuracy"] for effect in found]
    assert [j.difference.mean for j in judged] == pytest.approx([values.mean() for values in expected])
    p = [ttest_1samp(values, 0).pvalue for values in expected]
    assert [j.p_adjusted for j in judged] == pytest.approx(multipletests(p, method="holm")[1])
    assert [j.verdict for j in judged] == ["unresolved", "better"]


def test_steps_compare_each_arm_with_the_one_before_it():
    records = designed("cumulative", AXES, outcome)
    order = [(0, 0), (1, 0), (2, 0), (2, 1)]
    accuracies = [[outcome(cell, seed)["accuracy"] for seed in range(5)] for cell in order]
    found = families(current(records), COLUMNS)
    assert list(found) == ["steps"]
    assert [effect.name for effect in found["steps"]] == ["arm 10", "arm 20", "arm 21"]
    p = [ttest_rel(after, before).pvalue for before, after in itertools.pairwise(accuracies)]
    adjusted = [effect.judgements["accuracy"].p_adjusted for effect in found["steps"]]
    assert adjusted == pytest.approx(multipletests(p, method="holm")[1])


def test_sheets_show_the_primary_metric_with_words_and_the_other_qualities_with_signs():
    records = designed("factorial", AXES, outcome)
    effects = sheet_of(records, "effects")
    assert [(c.label, c.unit) for c in effects.columns] == [
        ("change", ""),
        ("seeds", ""),
        ("Δ accuracy", "pp"),
        ("verdict", ""),
        ("Δ F1 macro", "pp"),
    ]
    assert texts(effects, "seeds") == ["5/5"] * 3
    assert texts(effects, "verdict") == ["unresolved (n=5)", "worse", "worse"]
    assert [text[-1] == "▼" for text in texts(effects, "Δ F1 macro")] == [False, True, True]
    means = [effect.judgements["accuracy"].difference for effect in families(current(records), COLUMNS)["effects"]]
    assert texts(effects, "Δ accuracy")[2] == f"−{-100 * means[2].mean:.2f} ± {100 * means[2].half:.2f}"
    assert effects.columns[2].cells[2].order == pytest.approx(100 * means[2].mean)
    assert any("over these 3 of one metric" in note for note in effects.notes)
    assert [sheet.key for sheet in sheets(current(records), COLUMNS)] == ["effects", "interactions"]


def test_a_missing_trial_leaves_its_seed_out_and_is_told():
    records = designed("factorial", AXES, outcome)
    (lost,) = [r for r in records if r["arm"] == "arm 21" and r["seed"] == 3]
    lost |= {"status": "diverged", "metrics": {}}
    effects = sheet_of(records, "effects")
    assert texts(effects, "seeds") == ["5/5", "4/5", "4/5"]
    assert any("arm 21 lacks seed 3 (diverged)" in note for note in effects.notes)


def test_an_arm_without_any_trial_leaves_gaps_and_no_traceback():
    records = [r for r in designed("factorial", AXES, outcome) if r["arm"] != "arm 21"]
    effects = sheet_of(records, "effects")
    assert texts(effects, "seeds") == ["5/5", "0/5", "0/5"]
    assert texts(effects, "Δ accuracy")[1:] == ["–", "–"]
    assert texts(effects, "verdict")[1:] == ["–", "–"]
    assert any("arm 21 lacks seeds 0, 1, 2, 3, 4 (pending)" in note for note in effects.notes)
    assert interactions(current(records)) == ()


@pytest.mark.parametrize("kind", ["one-at-a-time", "leave-one-out"])
def test_designs_whose_table_says_it_all_have_no_sheets(kind):
    assert sheets(current(designed(kind, AXES, outcome)), COLUMNS) == ()


@pytest.mark.parametrize("design", [None, {"kind": "leave-one-out", "axes": [], "cells": {}}])
def test_records_without_cells_have_no_sheets(design):
    records = designed("factorial", AXES, outcome, design=design)
    assert sheets(current(records), COLUMNS) == ()


def test_part_of_a_design_has_no_sheets():
    """With ``--only`` some arms of the design are not planned at all."""
    records = designed("factorial", AXES, outcome, planned={"arms": ["baseline", "arm 01"], "seeds": [0, 1, 2, 3, 4]})
    assert sheets(current([r for r in records if r["arm"] in {"baseline", "arm 01"}]), COLUMNS) == ()


def test_times_are_judged_as_ratios():
    def timed(cell, seed):
        ratio = 2 ** cell[0] * (1.5 if cell[1] else 1) * (1 + NOISE[cell][seed])
        return {"latency_b1_ms": (1 + seed) * ratio, "latency_b1_ratio": ratio}

    measure = {"primary": "latency", "metrics": ["latency"], "latency": {"batch_sizes": [1]}}
    records = designed("factorial", AXES, timed, measure=measure)
    columns = quantities(["latency"], [1])
    effects, both = sheets(current(records), columns)
    assert (effects.columns[2].label, effects.columns[2].unit) == ("ratio latency b1", "×")
    shown = [text.split(" ± ")[0] for text in texts(effects, "ratio latency b1")]
    assert [float(text) for text in shown] == pytest.approx([2, 4, 1.5], rel=0.01)
    assert texts(effects, "verdict") == ["worse"] * 3
    assert texts(both, "verdict") == ["equivalent"] * 2  # 2 % is the least that sampling tells apart
    few = [record for record in records if record["seed"] < 2]
    assert texts(sheets(current(few), columns)[0], "verdict") == ["unresolved (n=2)"] * 3


def test_interaction_plots_get_the_means_over_all_other_axes():
    axes = {**AXES, "loss": ["a", "b"]}
    found = interactions(current(designed("factorial", axes, lambda cell, seed: outcome(cell[:2], seed))))
    assert [tuple(axis.name for axis in one.axes) for one in found] == [
        ("batch_size", "norm"),
        ("batch_size", "loss"),
        ("norm", "loss"),
    ]
    first = found[0]
    values = np.array([outcome((2, 1), seed)["accuracy"] for seed in range(5)])
    assert first.means[2][1].mean == pytest.approx(values.mean())
    assert first.means[2][1].half == pytest.approx(student.ppf(0.975, 4) * values.std(ddof=1) / np.sqrt(5))
    assert first.judgements[2, 1].verdict == "better"
    assert all(judgement.difference.mean == 0 for judgement in found[1].judgements.values())


def test_the_same_names_of_recipe_and_model_are_told_apart():
    axes = {"recipe.width": ["1", "2"], "model.width": ["3", "4"]}
    trials = current(designed("factorial", axes, lambda cell, seed: outcome((0, 0), seed)))
    assert [effect.name for effect in families(trials, COLUMNS)["effects"]] == [
        "recipe.width: 1 → 2",
        "model.width: 3 → 4",
    ]


SUITE = """
question = "?"
dataset = "digits"
model = { name = "resnet", depth = 8, width = 4 }
[design]
kind = "factorial"
"recipe.batch_size" = [64, 16]
norm = ["batch", { name = "group", groups = 4 }]
"""


def test_records_say_the_design(tmp_path):
    host = PluginHost.discover()
    suite, place = parse(SUITE.encode(), "suite.toml", host.registry), Place("cpu", "cpu", "a machine")
    plan = make_plan(suite, host, place)
    record = Ledger(suite, plan, place, {}, Store(tmp_path)).enter(plan.trials[-1], {})
    assert record["design"] == {
        "kind": "factorial",
        "axes": [
            {"key": "recipe.batch_size", "levels": ["64", "16"]},
            {"key": "norm", "levels": ["batch", "group(groups=4)"]},
        ],
        "cells": {
            "baseline": [0, 0],
            "norm=group(groups=4)": [0, 1],
            "batch_size=16": [1, 0],
            "batch_size=16, norm=group(groups=4)": [1, 1],
        },
    }
