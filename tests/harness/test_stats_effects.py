from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.stats.effects import effect_size, hedges_correction, improvement
from cnnbench.stats.intervals import Estimate

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=12).filter(lambda v: np.std(v) > 1e-3)
SIGNS = st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=15)


@pytest.mark.parametrize("df", [2, 4, 9, 19, 400])
def test_hedges_correction_makes_the_standardized_mean_unbiased(df) -> None:
    # 1 / J is the mean of sigma / s, which a chi distribution gives.
    ends = max(0.0, math.sqrt(df) - 8), math.sqrt(df) + 8
    mean, _ = scipy.integrate.quad(lambda x: math.sqrt(df) / x * scipy.stats.chi.pdf(x, df), *ends)
    assert hedges_correction(df) == pytest.approx(1 / mean, rel=1e-6)


def test_the_correction_is_near_the_rule_of_thumb() -> None:
    assert hedges_correction(10) == pytest.approx(1 - 3 / (4 * 10 - 1), abs=1e-3)


def test_the_mean_effect_size_is_the_true_one() -> None:
    draws = np.random.default_rng(0).normal(0.8, 1, (20_000, 5))
    found = np.array([effect_size(row) for row in draws])
    assert found.mean() == pytest.approx(0.8, abs=4 * found.std() / math.sqrt(found.size))
    assert (draws.mean(1) / draws.std(1, ddof=1)).mean() > 0.95  # as it is uncorrected


@settings(deadline=None, max_examples=50)
@given(VALUES, st.floats(0.01, 100), st.randoms(use_true_random=False))
def test_an_effect_size_has_a_sign_and_no_unit(values, scale, random) -> None:
    found = effect_size(values)
    assert found is not None
    assert effect_size(np.negative(values)) == pytest.approx(-found)
    assert effect_size(np.array(values) * scale) == pytest.approx(found, rel=1e-6)
    assert effect_size(random.sample(values, len(values))) == pytest.approx(found, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [0.3, 0.3, 0.3], [0.0] * 9])
def test_there_is_none_without_spread_or_with_too_few(values) -> None:
    assert effect_size(values) is None


# Probability of improvement.


@settings(deadline=None, max_examples=100)
@given(SIGNS)
def test_the_share_of_wins_counts_ties_half_and_has_the_exact_binomial_interval(signs) -> None:
    found = improvement(signs, "higher")
    assert found is not None
    wins, n = signs.count(1.0) + signs.count(0.0) / 2, len(signs)
    assert (found.mean, found.n) == (pytest.approx(wins / n), n)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    if wins == int(wins):
        theirs = scipy.stats.binomtest(int(wins), n).proportion_ci(0.95, method="exact")
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


@settings(deadline=None, max_examples=100)
@given(SIGNS)
def test_what_is_a_win_for_one_is_a_loss_for_the_other(signs) -> None:
    one, other = improvement(signs, "higher"), improvement(signs, "lower")
    assert one is not None
    assert other is not None
    assert one.mean + other.mean == pytest.approx(1)
    assert one.low + other.high == pytest.approx(1)
    assert improvement(np.negative(signs), "lower") == one


def test_without_a_pair_nothing_improves() -> None:
    assert improvement([], "higher") is None
    assert improvement([2.0], "higher") == Estimate(1.0, pytest.approx(0.025), 1.0, 1)


@pytest.mark.parametrize("n", [3, 5, 10, 20])
def test_the_interval_holds_the_true_share_in_95_percent_whatever_it_and_the_ties_are(n) -> None:
    # Exactly, by the distribution of wins + ties / 2.
    signs = [[1.0] * (k // 2) + [0.0] * (k % 2) + [-1.0] * (n - k // 2 - k % 2) for k in range(2 * n + 1)]
    found = [improvement(row, "higher") for row in signs]
    for tied in np.linspace(0, 1, 11):
        for share in np.linspace(tied / 2, 1 - tied / 2, 21):
            chances = np.ones(1)
            for _ in range(n):
                chances = np.convolve(chances, [1 - share - tied / 2, tied, share - tied / 2])
            held = [one.low - 1e-12 <= share <= one.high + 1e-12 for one in found]  # type: ignore[union-attr, operator]
            assert chances[held].sum() >= 0.95, (tied, share)
