from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.stats.intervals import Estimate, mean_interval, paired_difference
from cnnbench.stats.rounds import Ratio, called_different, median_interval, paired_ratio, turn_medians

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


# Medians of samples that come in rounds.


def binomial_ranks(count: int) -> tuple[int, int] | None:
    rank = math.floor((count - 1.96 * math.sqrt(count)) / 2)
    return (rank, count + 1 - rank) if rank >= 1 else None


def balanced(count: int) -> list[int]:
    """The numbers 1 to count, a low and a high one in turn: every block of two has the same number below the median."""
    numbers = range(1, count + 1)
    return [numbers[i // 2 if i % 2 == 0 else -1 - i // 2] for i in range(count)]


def test_independent_samples_have_the_binomial_interval() -> None:
    for count in range(1, 300):
        interval = median_interval(balanced(count))
        assert interval == binomial_ranks(count)
        if interval is None:
            assert count < 8
            continue
        low, high = (int(end) for end in interval)
        # It misses where fewer than `low` or at least `high` samples lie below the median.
        assert scipy.stats.binom.cdf(high - 1, count, 0.5) - scipy.stats.binom.cdf(low - 1, count, 0.5) >= 0.95
        if count >= 30:  # and it is no wider than it need be
            assert scipy.stats.binom.cdf(high - 3, count, 0.5) - scipy.stats.binom.cdf(low + 1, count, 0.5) < 0.95


ROUNDS = st.tuples(st.integers(1, 6), st.integers(1, 40), st.integers(0, 2**32 - 1), st.booleans())


def drawn(rounds: int, per_round: int, seed: int, ties: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    samples = np.exp(rng.normal(0, 1, (rounds, per_round)) + rng.normal(0, 1, (rounds, 1)))
    return np.ceil(samples) if ties else samples


@settings(deadline=None, max_examples=100)
@given(ROUNDS)
def test_the_interval_holds_the_median_and_is_no_narrower_than_the_binomial(shape) -> None:
    per_round, rounds, seed, ties = shape
    samples = drawn(rounds, per_round, seed, ties).ravel()
    interval = median_interval(samples, per_round)
    ranks = binomial_ranks(samples.size)
    if interval is None:
        return
    low, high = interval
    assert ranks is not None
    assert low <= np.median(samples) <= high
    assert {low, high} <= set(samples)
    ordered = np.sort(samples)
    assert low <= ordered[ranks[0] - 1]
    assert high >= ordered[ranks[1] - 1]


@settings(deadline=None, max_examples=100)
@given(ROUNDS, st.integers(-20, 20))
def test_the_interval_scales_and_does_not_see_the_order_within_a_round(shape, power) -> None:
    per_round, rounds, seed, ties = shape
    samples = drawn(rounds, per_round, seed, ties)
    interval = median_interval(samples.ravel(), per_round)
    scaled = median_interval(samples.ravel() * 2.0**power, per_round)
    assert scaled == (interval and tuple(end * 2.0**power for end in interval))
    shuffled = np.random.default_rng(seed).permuted(samples, axis=1)
    assert median_interval(shuffled.ravel(), per_round) == interval


def test_samples_of_one_round_that_agree_count_once() -> None:
    turns = np.random.default_rng(0).normal(10, 1, 40)
    once, ten_times = median_interval(turns), median_interval(np.repeat(turns, 10), 10)
    assert ten_times[1] - ten_times[0] == pytest.approx(once[1] - once[0], rel=0.25)  # type: ignore[index]
    naive = median_interval(np.random.default_rng(0).permutation(np.repeat(turns, 10)))
    assert naive[1] - naive[0] < 0.5 * (once[1] - once[0])  # type: ignore[index]


def test_neighbouring_rounds_that_agree_widen_the_interval() -> None:
    turns = np.random.default_rng(0).normal(10, 1, 100)
    apart, together = median_interval(turns), median_interval(np.sort(turns.reshape(4, 25), axis=1).ravel())
    assert together[1] - together[0] > 1.5 * (apart[1] - apart[0])  # type: ignore[index]


def test_samples_that_agree_have_an_interval_of_width_zero() -> None:
    assert median_interval([2.0] * 30, 3) == (2.0, 2.0)


def test_too_few_samples_have_no_interval() -> None:
    assert median_interval([]) is None
    assert median_interval(range(7)) is None
    assert median_interval(range(50), 50) is None, "one round tells nothing of how rounds vary"
    assert median_interval(balanced(20), 10) is not None


@pytest.mark.parametrize(("samples", "per_round"), [(range(7), 2), (range(4), 0), ([[1.0, 2.0]], 1)])
def test_rounds_are_whole(samples, per_round) -> None:
    for function in (median_interval, turn_medians):
        with pytest.raises(ValueError, match="expected whole rounds"):
            function(samples, per_round)


def test_turn_medians_are_the_rounds_medians() -> None:
    assert turn_medians([1, 2, 9, 4, 4, 1], 3).tolist() == [2, 4]
    assert turn_medians([3.0, 1.0], 1).tolist() == [3, 1]


@pytest.mark.parametrize(
    ("kind", "shape", "least"),
    [
        ("independent", (10, 5), 0.95),
        ("independent", (60, 10), 0.95),
        ("delayed", (30, 5), 0.95),
        ("rounds", (10, 5), 0.95),
        ("rounds", (60, 10), 0.95),
        ("neighbours", (200, 10), 0.93),
    ],
)
def test_coverage_of_the_median_interval(kind, shape, least) -> None:
    rng = np.random.default_rng(0)
    runs, held = 500, 0
    for _ in range(runs):
        noise = rng.normal(0, 0.05, shape)
        if kind == "delayed":  # one sample in ten takes much longer
            noise = np.where(rng.random(shape) < 0.1, 1.0, noise)
            middle = 0.05 * scipy.stats.norm.ppf(0.5 / 0.9)
        else:
            middle = 0.0
            common = rng.normal(0, 0.05, (shape[0], 1))
            if kind == "neighbours":
                for i in range(1, shape[0]):
                    common[i] = 0.5 * common[i - 1] + math.sqrt(0.75) * common[i]
            noise = noise + (0 if kind == "independent" else common)
        low, high = median_interval(np.exp(noise).ravel(), shape[1])  # type: ignore[misc]
        held += low <= math.exp(middle) <= high
    assert held / runs >= least - 0.01  # one standard error


# Ratios.


def test_what_slows_a_whole_round_cancels_in_the_ratio() -> None:
    rng = np.random.default_rng(0)
    slow = np.exp(rng.normal(0, 1, 40))
    found = paired_ratio(3 * slow, 2 * slow)
    assert (found.median, found.low, found.high) == pytest.approx((1.5, 1.5, 1.5))
    assert found.n == 40
    assert found.interval == (found.low, found.high)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(0, 30))
def test_the_ratio_the_other_way_round_is_the_reciprocal(seed, half) -> None:
    arm, reference = np.exp(np.random.default_rng(seed).normal(0, 1, (2, 2 * half + 1)))
    there, back = paired_ratio(arm, reference), paired_ratio(reference, arm)
    assert there.median * back.median == pytest.approx(1)
    if there.interval is None:
        assert there.n < 8 or there.n >= 20  # pairs of rounds may vary much
        assert back.interval is None
        return
    low, high = there.interval
    assert low <= there.median <= high
    assert back.interval == pytest.approx((1 / high, 1 / low))


def test_below_eight_rounds_a_ratio_has_no_interval() -> None:
    assert paired_ratio([1.0] * 7, [2.0] * 7) == Ratio(0.5, None, None, 7)
    assert paired_ratio([1.0] * 8, [2.0] * 8) == Ratio(0.5, 0.5, 0.5, 8)


@pytest.mark.parametrize(("arm", "reference"), [([1.0], [1.0, 2.0]), ([], []), ([[1.0]], [[1.0]])])
def test_ratios_need_one_value_a_round(arm, reference) -> None:
    with pytest.raises(ValueError, match="one value a round from both"):
        paired_ratio(arm, reference)


@pytest.mark.parametrize("drift", [0.0, 0.5])
def test_an_arm_against_itself_shows_a_ratio_that_excludes_one_in_a_twentieth_at_most(drift) -> None:
    rng = np.random.default_rng(0)
    runs, missed = 1000, 0
    for _ in range(runs):
        common = np.cumsum(rng.normal(0, drift, 30))
        arm, reference = np.exp(common + rng.normal(0, 0.05, (2, 30)))
        low, high = paired_ratio(arm, reference).interval  # type: ignore[misc]
        missed += not low <= 1 <= high
    assert missed / runs <= 0.05


@pytest.mark.parametrize(
    ("low", "high", "called"),
    [
        (0.99, 1.01, "same"),
        (1.001, 1.5, "same"),  # it differs, perhaps by less than counts
        (1.021, 1.5, "slower"),
        (0.5, 0.97, "faster"),
        (0.5, 0.99, "same"),
        (0.5, 0.981, "same"),
        (0.5, 0.9803, "faster"),  # 1 / 1.02 is 0.9804
        (0.5, 1.5, "same"),
        (None, None, "same"),
    ],
)
def test_a_difference_counts_where_the_whole_interval_is_beyond_the_resolution(low, high, called) -> None:
    assert called_different(Ratio(1.0, low, high, 20), 0.02) == called


@settings(deadline=None, max_examples=100)
@given(st.floats(0.5, 2), st.floats(1, 1.5), st.floats(0, 0.1))
def test_seen_from_the_other_arm_the_call_is_the_opposite(low, width, resolution) -> None:
    ratio = Ratio(low, low, low * width, 20)
    other = Ratio(1 / low, 1 / (low * width), 1 / low, 20)
    opposite = {"faster": "slower", "slower": "faster", "same": "same"}
    edges = [abs(end - edge) < 1e-9 for end in (low, low * width) for edge in (1 + resolution, 1 / (1 + resolution))]
    if not any(edges):
        assert called_different(other, resolution) == opposite[called_different(ratio, resolution)]
