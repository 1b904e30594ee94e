"""Contrasts of designed experiments, against regression with dummies and repeated-measures analysis of variance."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp
from statsmodels.stats.anova import AnovaRM

from cnnbench.design import cells as cells_of
from cnnbench.inference import Inference
from cnnbench.stats.designs import interactions, main_effects, steps
from cnnbench.stats.verdicts import judge

SIZES = (3, 2, 2)


def outcomes(sizes, seeds=6, rng=0):
    """Of every cell one value a seed: luck of the seed, effects, interactions and noise."""
    chance = np.random.default_rng(rng)
    luck = chance.normal(0, 5, seeds)
    return {
        cell: luck + chance.normal(0, 2) + chance.normal(0, 1, seeds) for cell in itertools.product(*map(range, sizes))
    }


def long(cells):
    rows = [(*cell, seed, value) for cell, values in cells.items() for seed, value in enumerate(values)]
    names = ["a", "b", "c"][: len(rows[0]) - 2]
    return pd.DataFrame(rows, columns=[*names, "seed", "y"])


def estimates(contrasts, cells):
    found = {}
    for contrast in contrasts:
        plus, minus = contrast.sides(cells)
        found[contrast.axes, contrast.levels] = plus - minus
    return found


def test_main_effects_and_interactions_are_those_of_a_regression_on_sum_coded_axes():
    """With sum coding a level's coefficient is its distance from the mean over all other axes."""
    cells = outcomes(SIZES)
    fitted = smf.ols("y ~ C(a, Sum) * C(b, Sum) * C(c, Sum) + C(seed)", long(cells)).fit().params
    a = [fitted["C(a, Sum)[S.0]"], fitted["C(a, Sum)[S.1]"]]
    a.append(-sum(a))
    b = fitted["C(b, Sum)[S.0]"]
    found = {key: values.mean() for key, values in estimates(main_effects(SIZES), cells).items()}
    assert list(found) == [((0,), (1,)), ((0,), (2,)), ((1,), (1,)), ((2,), (1,))]
    assert found[(0,), (1,)] == pytest.approx(a[1] - a[0])
    assert found[(0,), (2,)] == pytest.approx(a[2] - a[0])
    assert found[(1,), (1,)] == pytest.approx(-2 * b)

    ab = [fitted[f"C(a, Sum)[S.{level}]:C(b, Sum)[S.0]"] for level in (0, 1)]
    ab.append(-sum(ab))
    found = {key: values.mean() for key, values in estimates(interactions(SIZES), cells).items()}
    assert list(found)[:2] == [((0, 1), (1, 1)), ((0, 1), (2, 1))]
    assert len(found) == 2 + 2 + 1
    assert found[(0, 1), (1, 1)] == pytest.approx(2 * (ab[0] - ab[1]))
    assert found[(0, 1), (2, 1)] == pytest.approx(2 * (ab[0] - ab[2]))


def test_the_paired_t_over_seeds_is_the_repeated_measures_analysis_of_variance():
    """With two levels each contrast has one degree of freedom, and its squared t is the F of its own error term."""
    cells = outcomes((2, 2, 2))
    table = AnovaRM(long(cells), "y", "seed", within=["a", "b", "c"]).fit().anova_table
    for contrasts in (main_effects((2, 2, 2)), interactions((2, 2, 2))):
        for (axes, _), values in estimates(contrasts, cells).items():
            row = table.loc[":".join("abc"[axis] for axis in axes)]
            assert ttest_1samp(values, 0).statistic ** 2 == pytest.approx(row["F Value"])
            assert ttest_1samp(values, 0).pvalue == pytest.approx(row["Pr > F"])


def test_an_interaction_is_the_difference_of_two_differences():
    cells = {(0, 0): [1.0], (0, 1): [3.0], (1, 0): [2.0], (1, 1): [10.0]}
    (found,) = interactions((2, 2))
    plus, minus = found.sides(cells)
    assert plus - minus == pytest.approx([(10 - 3) - (2 - 1)])


def test_steps_go_from_each_arm_to_the_next():
    first, others = cells_of("cumulative", [2, 3])
    found = steps([first, *others])
    assert [(step.minus, step.plus) for step in found] == [
        (((0, 0),), ((1, 0),)),
        (((1, 0),), ((1, 1),)),
        (((1, 1),), ((1, 2),)),
    ]
    plus, minus = found[1].sides({(1, 0): [1.0, 2.0], (1, 1): [5.0, np.nan]})
    assert (plus - minus)[0] == 4.0
    assert np.isnan(plus[1])
    assert np.isnan(minus[1])


def test_a_seed_that_lacks_a_cell_is_left_out_of_the_contrasts_that_need_it_and_of_no_other():
    cells = outcomes((3, 2))
    whole = estimates(main_effects((3, 2)), cells)
    cells[2, 1][4] = np.nan
    del cells[2, 0]
    found = estimates(main_effects((3, 2)), cells)
    assert np.array_equal(found[(0,), (1,)], whole[(0,), (1,)])
    assert np.isnan(found[(0,), (2,)]).all()
    assert np.isnan(found[(1,), (1,)]).all()


@given(st.lists(st.integers(2, 4), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_contrasts_see_nothing_but_their_own_axes(sizes, seed):
    """Effects that simply add up: each main effect is its own, all interactions are zero; the seed's luck cancels."""
    chance = np.random.default_rng(seed)
    own = [chance.integers(-9, 9, size).astype(float) for size in sizes]
    luck = chance.integers(-9, 9, 3).astype(float)
    cells = {
        cell: luck + sum(own[axis][level] for axis, level in enumerate(cell))
        for cell in itertools.product(*map(range, sizes))
    }
    for (axes, levels), values in estimates(main_effects(sizes), cells).items():
        assert values == pytest.approx(np.full(3, own[axes[0]][levels[0]] - own[axes[0]][0]))
    for values in estimates(interactions(sizes), cells).values():
        assert values == pytest.approx(np.zeros(3), abs=1e-9)


def test_a_design_without_any_effect_is_called_to_have_one_in_five_percent_at_most():
    """400 designs of 3 x 2 cells and five seeds, whose errors are as skewed as an exponential's; both families."""
    rng = np.random.default_rng(0)
    calls = {"main": 0, "interactions": 0}
    for _ in range(400):
        luck = rng.exponential(3, 5)
        cells = {cell: luck + rng.exponential(1, 5) for cell in itertools.product(range(3), range(2))}
        for name, contrasts in (("main", main_effects((3, 2))), ("interactions", interactions((3, 2)))):
            arms = {str(place): contrast.sides(cells) for place, contrast in enumerate(contrasts)}
            judged = judge(arms, better="higher", margin=None, inference=Inference(), rng=rng)
            calls[name] += any(one.verdict != "unresolved" for one in judged.values())
    assert max(calls.values()) <= 20 + 3 * (400 * 0.05 * 0.95) ** 0.5, calls
