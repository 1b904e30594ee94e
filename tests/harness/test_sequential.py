"""Verdicts under looking: against closed forms, independent simulations, and their own replay."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cnnbench.inference import Inference
from cnnbench.stats.looks import Step, looks_for, p_over_looks, repeated_confidence
from cnnbench.stats.sequential import judge_sequentially
from cnnbench.stats.verdicts import judge

LOOKS = (4, 6, 9)
STEPS = tuple(Step(n, n / 9) for n in LOOKS)


def family(differences, **how):
    """Judge arms given as differences from a reference of zeros, [arms x seeds]."""
    arms = {f"arm {place}": (row, np.zeros(len(row))) for place, row in enumerate(differences)}
    told = {"looks": LOOKS, "better": "higher", "margin": None, "inference": Inference()}
    return judge_sequentially(arms, **{**told, **how}, rng=np.random.default_rng(0))


def at_most(share, runs):
    """How many of so many runs may show an error of this probability; one test in a thousand fails by chance."""
    return int(stats.binom.ppf(0.999, runs, share))


@pytest.mark.parametrize(
    ("most", "looks"), [(20, (4, 6, 9, 13, 20)), (10, (5, 7, 10)), (6, (4, 6)), (5, (5,)), (2, (2,))]
)
def test_looks_end_with_all_seeds(most, looks):
    assert looks_for(most) == looks


@given(st.integers(2, 500))
def test_looks_grow_and_begin_late_enough(most):
    looks = looks_for(most)
    assert looks[-1] == most
    assert all(b > a for a, b in pairwise(looks))
    assert len(looks) == 1 or looks[0] >= 4


def test_many_pairs_and_equal_levels_are_the_boundaries_of_pocock():
    # Jennison and Turnbull (2000), table 2.1: two-sided 5 %, the constant of Pocock's test for K looks.
    for looks, constant in ((2, 2.178), (5, 2.413)):
        steps = tuple(Step(10_000 * place, 1.0) for place in range(1, looks + 1))
        assert p_over_looks(stats.norm.sf(constant), steps, "t") == pytest.approx(0.025, rel=0.01)


def test_many_pairs_and_growing_levels_are_those_of_the_joint_normal():
    steps = tuple(Step(1_000 * n, n / 9) for n in LOOKS)
    sizes = np.array([step.n for step in steps])
    correlation = np.sqrt(np.minimum.outer(sizes, sizes) / np.maximum.outer(sizes, sizes))
    for lowest in (0.05, 0.01, 0.002):
        upper = stats.norm.isf([lowest * step.weight for step in steps])
        wanted = 1 - stats.multivariate_normal.cdf(upper, cov=correlation, abseps=1e-6, maxpts=300_000)
        assert p_over_looks(lowest, steps, "t") == pytest.approx(wanted, rel=0.03)


def test_few_pairs_are_those_of_raw_values_drawn_by_another_way():
    runs = 60_000
    values = np.random.default_rng(5).standard_normal((runs, 9))
    lowest = np.full(runs, np.inf)
    for step in STEPS:
        p = stats.ttest_1samp(values[:, : step.n], 0, axis=1, alternative="greater").pvalue
        lowest = np.minimum(lowest, p / step.weight)
    for quantile in (0.01, 0.05, 0.3):
        limit = np.quantile(lowest, quantile)
        assert p_over_looks(limit, STEPS, "t") == pytest.approx(quantile, abs=4 * np.sqrt(quantile / runs))


@given(st.floats(1e-9, 1), st.floats(1e-9, 1))
def test_sequential_p_is_monotone_and_within_bonferronis_bound(one, other):
    low, high = sorted((one, other))
    p = [p_over_looks(value, STEPS, "t") for value in (low, high)]
    assert p[0] <= p[1]
    for value, found in zip((low, high), p, strict=True):
        assert found <= min(1, value * sum(step.weight for step in STEPS))
        assert found >= min(value, 1) * 0.98  # the last look by itself
        assert p_over_looks(value, STEPS, "sign-flip") >= found


def test_one_look_is_the_fixed_design():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(3, 6)) + np.array([[0], [0.7], [5]])
    arms = {str(place): (row, np.zeros(6)) for place, row in enumerate(values)}
    how = {"better": "lower", "margin": 1.5, "inference": Inference(), "rng": rng}
    sequential, fixed = judge_sequentially(arms, looks=(6,), **how), judge(arms, **how)
    for name in arms:
        assert sequential[name].verdict == fixed[name].verdict
        assert sequential[name].difference == fixed[name].difference
        for key in ("p", "p_adjusted", "p_sign_flip", "p_equivalence", "effect_size", "n"):
            assert getattr(sequential[name], key) == pytest.approx(getattr(fixed[name], key))


def test_a_plain_effect_is_decided_at_the_first_look_and_a_null_goes_on():
    rng = np.random.default_rng(1)
    found = family(rng.normal(size=(2, 9)) + np.array([[-30], [0]]))
    assert (found["arm 0"].verdict, found["arm 0"].n) == ("worse", 4)
    assert (found["arm 1"].verdict, found["arm 1"].n) == ("unresolved", 9)
    assert found["arm 0"].difference.high < 0
    assert found["arm 1"].difference.low < 0 < found["arm 1"].difference.high


effects = st.lists(st.sampled_from([0.0, 0.5, 2.0, 8.0, -3.0]), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(effects, st.integers(0, 2**32 - 1), st.sampled_from([None, 1.0]), st.sampled_from(["t", "sign-flip"]))
def test_what_a_look_has_decided_stays_as_seeds_are_added(shifts, seed, margin, test):
    values = np.random.default_rng(seed).normal(size=(len(shifts), 9)) + np.array(shifts)[:, None]
    how = {"margin": margin, "inference": Inference(test)}
    whole = family(values, **how)
    before = {}
    for look in LOOKS:
        # As a run has them then: arms that are closed have no more seeds, others none beyond the look.
        now = np.where(np.arange(9) < look, values, np.nan)
        for place, name in enumerate(whole):
            if name in before:
                now[place, before[name].n :] = np.nan
        found = family(now, **how)
        for name, earlier in before.items():
            assert found[name] == earlier
        before |= {name: one for name, one in found.items() if one.verdict != "unresolved"}
    assert found == whole


def test_what_a_closed_arm_has_beyond_its_look_changes_nothing():
    values = np.random.default_rng(0).normal(size=(2, 9)) + np.array([[30], [0]])
    other = values.copy()
    other[0, 4:] = -1e6
    assert family(values)["arm 0"] == family(other)["arm 0"]
    assert family(values, looks=(4, 6))["arm 1"].n == 6


def test_missing_pairs_are_left_out_and_looks_without_new_ones_skipped():
    values = np.random.default_rng(1).normal(size=(4, 9))
    values[0, [1, 2]] = np.nan
    values[1, 4:] = np.nan  # nothing after the first look
    values[2, 1:8] = np.nan  # its first test is at the last look
    values[3, 1:] = np.nan
    found = family(values)
    assert [found[name].n for name in found] == [7, 4, 2, 1]
    assert found["arm 3"].p is None
    assert {one.verdict for one in found.values()} == {"unresolved"}
    assert found["arm 1"].p >= stats.ttest_1samp(values[1, :4], 0).pvalue


def test_an_arm_that_has_no_pairs_yet_counts_in_the_family():
    rng = np.random.default_rng(1)
    decided, late = rng.normal(size=9) + 4, np.r_[np.full(6, np.nan), rng.normal(size=3)]
    alone, both = family([decided]), family([decided, late])
    assert both["arm 0"].p_adjusted == pytest.approx(2 * alone["arm 0"].p)


def test_evidence_that_has_turned_is_left_open():
    # At the first look arm 1 just misses Holm's first step; then arm 0 is decided, which would let its old p through.
    clear = [5.0, 2.0, 9.0, 4.0, 5.0, 5.0, 5.0, 5.0, 5.0]
    spread = next(
        spread
        for spread in np.geomspace(0.01, 3, 500)
        if 0.03 < family([1 + spread * np.array([-1.0, 1.0, 0.5, -0.5])], looks=LOOKS)["arm 0"].p < 0.045
    )
    turned = [*(1 + spread * np.array([-1.0, 1.0, 0.5, -0.5])), -3.0, -3.0, 1.0, -2.0, 1.0]
    found = family([clear, turned])
    assert (found["arm 0"].verdict, found["arm 0"].n) == ("better", 6)
    assert found["arm 1"].p_adjusted < 0.05
    assert found["arm 1"].difference.mean < 0
    assert found["arm 1"].verdict == "unresolved"


def test_a_quantity_without_noise_is_decided_by_what_it_is():
    found = family([[2.0] * 4 + [np.nan] * 5, [0.0] * 9, [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0]], exact=True)
    assert [one.verdict for one in found.values()] == ["better", "equivalent", "better"]
    assert found["arm 0"].p is None
    assert found["arm 2"].p < 0.05


def test_equivalence_is_tested_at_looks_too():
    values = np.random.default_rng(0).normal(size=(1, 9)) * 0.05
    found = family(values, margin=1.0)["arm 0"]
    assert (found.verdict, found.n) == ("equivalent", 4)
    assert family(values, margin=0.02)["arm 0"].verdict == "unresolved"


def test_false_discovery_rates_are_corrected_less():
    values = np.random.default_rng(4).normal(size=(4, 9)) + 1.2
    by_holm, by_rate = family(values), family(values, inference=Inference(correction="benjamini-hochberg"))
    assert all(by_rate[name].p_adjusted <= by_holm[name].p_adjusted for name in by_holm if by_rate[name].n == 9)


@pytest.mark.parametrize("looks", [(), (0, 4), (4, 4), (6, 4)])
def test_looks_that_do_not_ascend_are_refused(looks):
    with pytest.raises(ValueError, match="ascending"):
        family([[1.0, 2.0]], looks=looks)


def test_false_verdicts_of_a_family_without_effects():
    runs, wrong, unpaid = 250, 0, 0
    rng = np.random.default_rng(11)
    for _ in range(runs):
        values = rng.normal(size=(5, 9)) - rng.normal(size=9)  # one baseline for all
        wrong += any(one.verdict != "unresolved" for one in family(values).values())
        unpaid += any(stats.ttest_1samp(values[:, :look], 0, axis=1).pvalue.min() < 0.05 / 5 for look in LOOKS)
    assert wrong <= at_most(0.05, runs)
    assert unpaid > wrong


def test_false_equivalence_at_the_margin():
    runs, wrong = 250, 0
    rng = np.random.default_rng(12)
    for _ in range(runs):
        values = 0.5 * rng.normal(size=(2, 9)) + np.array([[1], [-1]])
        wrong += any(one.verdict == "equivalent" for one in family(values, margin=1.0).values())
    assert wrong <= at_most(0.05, runs)


@pytest.mark.parametrize("effect", [0.0, 1.5])
def test_repeated_intervals_hold_the_truth_wherever_the_run_stops(effect):
    runs, missed = 250, 0
    rng = np.random.default_rng(13)
    for _ in range(runs):
        found = family(rng.normal(size=(1, 9)) + effect)["arm 0"].difference
        missed += not found.low <= effect <= found.high
    assert missed <= at_most(0.05, runs)


def test_intervals_under_looks_are_those_of_t_whatever_is_asked():
    values = np.random.default_rng(2).normal(size=(3, 9)) + np.array([[0], [1], [9]])
    asked, plain = (family(values, inference=Inference(interval=way)) for way in ("bca", "t"))
    assert asked == plain


def test_confidence_of_repeated_intervals_is_that_of_the_test():
    for place, step in enumerate(STEPS):
        tail = (1 - repeated_confidence(STEPS, place)) / 2
        assert p_over_looks(tail / step.weight, STEPS, "t") == pytest.approx(0.025, rel=0.01)
    assert repeated_confidence(STEPS[-1:], 0) == 0.95
