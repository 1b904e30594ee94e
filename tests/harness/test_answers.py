"""The answer of a whole run: of its design and of its datasets, on records whose truth is known."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnbench.answers import answers_of
from cnnbench.tables import make_report

_spec = importlib.util.spec_from_file_location("designed_records", Path(__file__).with_name("designed_records.py"))
designed_records = importlib.util.module_from_spec(_spec)
sys.modules["designed_records"] = designed_records
_spec.loader.exec_module(designed_records)

AXES = {"model.norm": ["batch", "none"], "model.act": ["relu", "silu", "elu"]}


def said(kind, axes, gain, *, seeds=8, noise=0.001, **heading):
    """The answer to a run of one dataset; ``gain`` is a cell's true accuracy above 0.8."""

    def outcome(cell, seed):
        rng = np.random.default_rng([seed, *cell])
        return {"accuracy": 0.8 + 0.01 * seed + gain(cell) + rng.normal(0, noise)}

    records = designed_records.designed(kind, axes, outcome, seeds=seeds, **heading)
    ((dataset, text),) = answers_of(make_report(records), records).by_table
    assert dataset == ""
    return text


def test_a_factorial_answers_with_main_effects_and_interactions():
    text = said("factorial", AXES, lambda cell: -0.05 * (cell[0] == 1) + 0.04 * (cell == (1, 2)), noise=0.004)
    assert "Main effects, averaged over the other axes: of 3 changes, 1 raises accuracy (“act: relu → elu” by " in text
    assert "1 lowers it (“norm: batch → none” by " in text
    assert "1 of 2 interactions is shown (“norm: batch → none × act: relu → elu” +" in text
    assert text.endswith("pp beyond what each change does alone); the other stays undecided.")


@pytest.mark.parametrize(
    ("levels", "end"),
    [(["relu", "silu"], "The interaction stays undecided."), (AXES["model.act"], "Both interactions stay undecided.")],
)
def test_interactions_that_are_open_are_not_shown(levels, end):
    text = said("factorial", {**AXES, "model.act": levels}, lambda cell: -0.05 * cell[0], noise=0.02, seeds=4)
    assert text.endswith(end)
    assert "shown" not in text


def test_interactions_within_the_margin_add_nothing_that_matters():
    measure = {"primary": "accuracy", "metrics": ["accuracy"], "margin": {"accuracy": 0.01}}
    text = said("factorial", AXES, lambda cell: -0.05 * cell[0], measure=measure)
    assert text.endswith("Both interactions add nothing that matters (within 1 pp).")


def test_a_cumulative_design_answers_with_its_steps():
    axes = {"a": ["off", "on"], "b": ["off", "on"], "c": ["off", "on"]}
    text = said("cumulative", axes, lambda cell: 0.03 * cell[0] - 0.02 * cell[2], noise=0.003)
    assert "Each step beside the one before: of 3 steps, 1 raises accuracy (“arm 100” by " in text
    assert "1 lowers it (“arm 111” by " in text


def test_one_axis_adds_nothing_to_its_arms():
    assert "effects" not in said("factorial", {"model.norm": ["batch", "none", "layer"]}, lambda cell: 0.01 * cell[0])
