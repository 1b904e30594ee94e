"""Seed arithmetic, against statsmodels and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2, ttest_1samp
from statsmodels.stats.power import TTestPower

from cnnbench.inference import Inference
from cnnbench.stats.looks import looks_for
from cnnbench.stats.power import (
    MOST,
    effective_df,
    pooled_spread,
    power_of,
    sd_interval,
    seeds_for_sign_flip,
    seeds_needed,
    smallest_effect,
    smallest_p,
)
from cnnbench.stats.sequential import judge_sequentially
from cnnbench.stats.signflip import sign_flip

PEER = TTestPower()


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
@pytest.mark.parametrize("comparisons", [1, 4, 10])
@pytest.mark.parametrize("effect", [0.0, 0.3, 1.0, 2.0])
def test_power_is_that_of_statsmodels(n, comparisons, effect):
    expected = PEER.power(effect, n, 0.05 / comparisons, alternative="two-sided")
    # Two seeds leave one degree of freedom, where the integrand has a kink.
    assert power_of(-0.7 * effect, 0.7, n, comparisons) == pytest.approx(expected, abs=1e-6 if n == 2 else 1e-9)


@pytest.mark.parametrize(("n", "comparisons"), [(5, 1), (5, 4), (10, 9), (30, 2)])
def test_the_smallest_effect_is_that_of_statsmodels(n, comparisons):
    expected = PEER.solve_power(nobs=n, alpha=0.05 / comparisons, power=0.8)
    assert smallest_effect(0.02, n, comparisons) == pytest.approx(0.02 * expected, rel=1e-5)


def test_the_smallest_effect_of_three_seeds_is_found_in_four_simulations_out_of_five():
    """statsmodels' solver gives up at such small n, so a simulation says whether ours is right."""
    effect = smallest_effect(1.0, 3, 4)
    draws = np.random.default_rng(0).normal(effect, 1, (20_000, 3))
    found = np.mean(ttest_1samp(draws, 0, axis=1).pvalue <= 0.05 / 4)
    assert found == pytest.approx(0.8, abs=0.012)  # four standard errors


@pytest.mark.parametrize(("effect", "comparisons"), [(0.5, 1), (0.2, 9), (3.0, 1), (40.0, 5)])
def test_seeds_needed_are_the_fewest(effect, comparisons):
    n = seeds_needed(effect, 1.0, comparisons)
    assert power_of(effect, 1.0, n, comparisons) >= 0.8
    assert n == 2 or power_of(effect, 1.0, n - 1, comparisons) < 0.8


def test_seeds_needed_round_statsmodels_up():
    assert seeds_needed(0.5, 1.0) == math.ceil(PEER.solve_power(effect_size=0.5, alpha=0.05, power=0.8)) == 34


def test_what_no_number_of_seeds_shows():
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(1e-4, 1.0) is None
    assert power_of(1.0, 1.0, 1) == 0.0
    assert smallest_effect(1.0, 1) == math.inf
    assert seeds_needed(1.0, 1.0, power=power_of(1.0, 1.0, MOST)) <= MOST


def test_no_noise_needs_two_seeds():
    assert power_of(0.001, 0.0, 2) == 1.0
    assert seeds_needed(0.001, 0.0) == 2


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 6), (2, 7), (10, 9), (100, 12)])
def test_the_sign_flip_test_can_reach_its_level_from_so_many_seeds(comparisons, seeds):
    level = 0.05 / comparisons
    best = [sign_flip(np.arange(1.0, n + 1), np.random.default_rng(0)) for n in (seeds - 1, seeds)]
    assert best == [smallest_p(seeds - 1), smallest_p(seeds)]
    assert best[1] <= level < best[0]
    assert seeds_for_sign_flip(comparisons) == seeds


def test_the_pooled_spread_is_the_root_mean_square_over_degrees_of_freedom():
    rows = [[1.0, 2.0, 3.0], [5.0, 9.0, np.nan], [4.0, np.nan, np.nan], [np.nan] * 3]
    found = pooled_spread([[row] for row in rows])
    assert found.sd == pytest.approx(math.sqrt((2 * 1.0 + 1 * 8.0) / 3))
    assert (found.typical, found.widest) == pytest.approx(((1 + math.sqrt(8)) / 2, math.sqrt(8)))
    assert found.differences == 5
    low, high = np.sqrt(3 * found.sd**2 / chi2.ppf([0.975, 0.025], 3))
    assert (found.low, found.high) == pytest.approx((low, high))


@pytest.mark.parametrize("rows", [[], [[1.0]], [[0.3, 0.3, 0.3], [0.1, 0.1, 0.1]]])
def test_no_spread_can_be_told_from_single_or_equal_differences(rows):
    assert pooled_spread([rows]) is None


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("arms", [1, 4])
def test_the_spreads_interval_covers_where_arms_share_the_baseline(n, arms):
    """Coverage within 1 pp of 95 % plus three standard errors of 8,000 simulations; counting shared differences as
    independent ones would come to 86 % with five arms.
    """
    rng = np.random.default_rng(n)
    trials = rng.normal(0, 1, (8_000, 1 + arms, n)) + rng.normal(0, 3, (8_000, 1, n))  # and luck that arms share
    differences = trials[:, 1:] - trials[:, :1]
    sds = np.sqrt(differences.var(axis=2, ddof=1).mean(axis=1))
    low, high = np.array([sd_interval(1.0, effective_df(arms * (n - 1), arms))]).T
    covered = np.mean((low * sds <= math.sqrt(2)) & (math.sqrt(2) <= high * sds))
    assert abs(covered - 0.95) < 0.01 + 3 * math.sqrt(0.05 * 0.95 / 8_000)
    one = pooled_spread([differences[0]])
    assert (one.sd, one.low) == pytest.approx((sds[0], low[0] * sds[0]))


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 7), (3, 8), (10, 10), (30, 12)])
def test_with_looks_the_sign_flip_test_can_reach_its_level_from_so_many_seeds(comparisons, seeds):
    assert seeds_for_sign_flip(comparisons, looking=True) == seeds
    verdicts = []
    for n in (seeds - 1, seeds):
        clear = {str(arm): (np.full(n, 1.0) + 0.1 * np.arange(n), np.zeros(n)) for arm in range(comparisons)}
        how = {"looks": looks_for(n), "better": "higher", "margin": None, "inference": Inference("sign-flip")}
        found = judge_sequentially(clear, **how, rng=np.random.default_rng(0))
        assert min(one.p for one in found.values()) == pytest.approx(smallest_p(n, looking=True))
        verdicts.append({one.verdict for one in found.values()})
    assert verdicts == [{"unresolved"}, {"better"}]
