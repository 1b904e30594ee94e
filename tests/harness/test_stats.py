from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.stats import Estimate, mean_interval, paired_difference

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12).filter(lambda v: np.std(v) > 1e-6)


@settings(deadline=None, max_examples=50)
@given(VALUES, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_interval_is_that_of_scipy(values: list[float], confidence: float) -> None:
    ours = mean_interval(values, confidence)
    theirs = scipy.stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert ours is not None
    expected = (np.mean(values), theirs.low, theirs.high)
    assert (ours.mean, ours.low, ours.high) == pytest.approx(expected, rel=1e-9, abs=1e-12 * np.abs(values).max())
    assert ours.n == len(values)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2, max_size=12))
def test_paired_interval_is_that_of_scipy(pairs: list[tuple[float, float]]) -> None:
    arm, baseline = np.array(pairs).T
    if np.std(arm - baseline) < 1e-6:
        return
    ours = paired_difference(arm, baseline)
    theirs = scipy.stats.ttest_rel(arm, baseline).confidence_interval(0.95)
    assert ours is not None
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-9)


def test_only_common_seeds_are_paired() -> None:
    arm = [0.9, math.nan, 0.7, 0.8]
    baseline = [0.8, 0.5, math.inf, 0.6]
    theirs = scipy.stats.ttest_rel([0.9, 0.8], [0.8, 0.6])
    ours = paired_difference(arm, baseline)
    assert ours is not None
    assert ours.n == 2
    assert ours.mean == pytest.approx(0.15)
    assert ours.half == pytest.approx((theirs.confidence_interval().high - theirs.confidence_interval().low) / 2)


def test_one_value_has_no_interval() -> None:
    assert mean_interval([0.5, math.nan]) == Estimate(0.5, None, None, 1)
    assert mean_interval([0.5]).half is None  # type: ignore[union-attr]
    assert paired_difference([1.0, math.nan], [0.5, 0.5]) == Estimate(0.5, None, None, 1)


def test_no_value_has_no_mean() -> None:
    assert mean_interval([]) is None
    assert mean_interval([math.nan, math.inf]) is None
    assert paired_difference([1.0, math.nan], [math.nan, 1.0]) is None


def test_values_that_agree_have_an_interval_of_width_zero() -> None:
    # The mean of three 0.1 is not 0.1 in floating point.
    assert mean_interval([0.1, 0.1, 0.1]) == Estimate(0.1, 0.1, 0.1, 3)


def test_differences_that_agree_but_for_rounding_have_no_spread() -> None:
    arm, baseline = np.array([1.1, 0.7, 0.3]), np.array([1.0, 0.6, 0.2])
    assert np.ptp(arm - baseline) > 0
    found = paired_difference(arm, baseline)
    assert found is not None
    assert found.half == 0
    assert found.mean == pytest.approx(0.1)


def test_small_but_real_spread_is_kept() -> None:
    found = paired_difference([1.0 + 1e-12, 1.0], [1.0, 1.0])
    assert found is not None
    assert found.half is not None
    assert found.half > 0


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="one value a seed from both"):
        paired_difference([1.0], [1.0, 2.0])


def test_coverage_of_the_paired_interval() -> None:
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 5, (2000, 5))
    arm, baseline = luck + rng.normal(0.3, 1, (2000, 5)), luck
    found = [paired_difference(a, b) for a, b in zip(arm, baseline, strict=True)]
    covered = np.mean([e.low <= 0.3 <= e.high for e in found])  # type: ignore[union-attr, operator]
    # Binomial: 0.95 with a standard error of 0.005.
    assert 0.93 < covered < 0.97
