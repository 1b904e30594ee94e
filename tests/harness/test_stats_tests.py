from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from cnnbench.stats.equivalence import tost
from cnnbench.stats.intervals import mean_interval
from cnnbench.stats.multiplicity import benjamini_hochberg, holm
from cnnbench.stats.paired import p_above, p_below, p_different
from cnnbench.stats.signflip import sign_flip, sign_flips

STEPS = st.lists(st.integers(-6, 6), min_size=1, max_size=9)  # integers: ties without rounding
VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12).filter(lambda v: np.std(v) > 1e-3)
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)
TESTS = st.sampled_from(["t", "sign-flip"])
SIDES = ["two-sided", "greater", "less"]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Sign flips.


def by_hand(values: list[int], side: str) -> float:
    seen = sum(values)
    sums = [
        sum(s * v for s, v in zip(signs, values, strict=True))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    reached = {
        "two-sided": lambda total: abs(total) >= abs(seen),
        "greater": lambda total: total >= seen,
        "less": lambda total: total <= seen,
    }[side]
    return sum(map(reached, sums)) / len(sums)


@settings(deadline=None, max_examples=200)
@given(STEPS, st.sampled_from(SIDES))
def test_the_exact_sign_flip_counts_every_pattern_and_every_tie(values, side) -> None:
    assert sign_flip(values, rng(), side) == by_hand(values, side)


@settings(deadline=None, max_examples=50)
@given(STEPS, st.sampled_from(SIDES))
def test_ties_are_ties_in_floating_point_too(values, side) -> None:
    # 0.1 + 0.2 is not 0.3 there.
    assert sign_flip(np.array(values) * 0.1, rng(), side) == by_hand(values, side)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("n", [2, 7, 12])
def test_the_exact_sign_flip_is_scipys(n, side) -> None:
    values = rng(n).normal(0.3, 1, n)
    theirs = scipy.stats.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative=side, n_resamples=5000
    )
    assert sign_flip(values, rng(), side) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_twenty_pairs_are_still_exact_and_twenty_one_are_drawn() -> None:
    values = rng(1).normal(0.4, 1, 21)
    assert sign_flip(values[:20], rng(1)) == sign_flip(values[:20], rng(2))
    assert sign_flip(np.ones(20), rng()) == 2.0**-19
    assert sign_flip(values, rng(1)) != sign_flip(values, rng(2))


@pytest.mark.parametrize("side", SIDES)
def test_drawn_patterns_agree_with_scipys(side) -> None:
    values = rng(5).normal(0.25, 1, 30)
    theirs = scipy.stats.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative=side, n_resamples=9999, rng=rng(1)
    )
    p = sign_flip(values, rng(2), side)
    assert p == pytest.approx(theirs.pvalue, abs=4 * math.sqrt(2 * p * (1 - p) / 9999) + 1e-4)


def test_a_drawn_p_is_never_zero() -> None:
    # No pattern drawn will reach all 40 signs: (0 + 1) / (9,999 + 1).
    assert sign_flip(np.ones(40), rng()) == 1e-4


@settings(deadline=None, max_examples=50)
@given(VALUES, st.randoms(use_true_random=False))
def test_a_sign_flip_p_minds_neither_sign_nor_order_nor_scale(values, random) -> None:
    p = sign_flip(values, rng())
    shuffled = random.sample(values, len(values))
    assert 2.0 ** (1 - len(values)) <= p <= 1
    assert sign_flip(np.negative(values), rng()) == p
    assert sign_flip(np.array(values) * 3, rng()) == p
    assert sign_flip(shuffled, rng()) == p
    assert sign_flip(values, rng(), "greater") == sign_flip(np.negative(values), rng(), "less")


@pytest.mark.parametrize("values", [[], [0.0], [0.0, 0.0]])
def test_without_any_difference_p_is_one(values) -> None:
    assert sign_flip(values, rng()) == 1


# Families.


@pytest.mark.parametrize("count", [1, 2, 3, 10, 30])
def test_adjusted_ps_are_those_of_statsmodels(count) -> None:
    draw = rng(count)
    for p_values in (draw.random(count), np.round(draw.random(count) ** 4, 2)):  # the second with ties and zeros
        assert holm(list(p_values)) == pytest.approx(multipletests(p_values, method="holm")[1])
        assert benjamini_hochberg(list(p_values)) == pytest.approx(multipletests(p_values, method="fdr_bh")[1])


@settings(deadline=None, max_examples=200)
@given(P_VALUES, st.randoms(use_true_random=False), st.integers(0, 11), st.floats(0, 1))
def test_adjusted_ps_keep_the_order_and_lie_between(p_values, random, place, smaller) -> None:
    for adjust in (holm, benjamini_hochberg):
        adjusted = adjust(p_values)
        assert all(p * (1 - 1e-12) <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
        ranked = [a for _, a in sorted(zip(p_values, adjusted, strict=True))]
        assert ranked == sorted(ranked)
        order = random.sample(range(len(p_values)), len(p_values))
        assert adjust([p_values[i] for i in order]) == pytest.approx([adjusted[i] for i in order])
        lower = [*p_values]
        lower[place % len(lower)] *= smaller
        assert all(b <= a * (1 + 1e-12) for a, b in zip(adjusted, adjust(lower), strict=True))
    assert all(b <= h * (1 + 1e-12) for b, h in zip(benjamini_hochberg(p_values), holm(p_values), strict=True))


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_a_family_of_one_needs_no_correction_and_one_of_none_has_none(adjust) -> None:
    assert adjust([0.04]) == [0.04]
    assert adjust([]) == []


# Paired tests of a mean.


@settings(deadline=None, max_examples=100)
@given(VALUES, st.floats(-100, 100))
def test_the_t_tests_are_scipys(values, limit) -> None:
    options = {"test": "t", "rng": rng()}
    sides = [("greater", p_above(values, limit, **options)), ("less", p_below(values, limit, **options))]
    for side, p in sides:
        assert p == pytest.approx(scipy.stats.ttest_1samp(values, limit, alternative=side).pvalue, rel=1e-6, abs=1e-12)
    expected = scipy.stats.ttest_1samp(values, 0).pvalue
    assert p_different(values, **options) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@settings(deadline=None, max_examples=100)
@given(VALUES, TESTS, st.floats(-5, 5), st.floats(-100, 100), st.floats(0, 1))
def test_moving_values_and_limit_together_changes_nothing(values, test, limit, shift, resolution) -> None:
    options = {"test": test, "rng": rng(), "resolution": resolution}
    data = np.round(values, 2)
    p = p_above(data, round(limit, 2), **options)
    assert 0 <= p <= 1
    moved = p_above(data + round(shift, 2), round(limit, 2) + round(shift, 2), **options)
    assert moved == pytest.approx(p, rel=1e-6, abs=1e-12)
    assert p_below(-data, -round(limit, 2), **options) == p
    assert p_above(data, round(limit, 2) + 1, **options) >= p * (1 - 1e-9)  # a higher bar is harder to pass


@pytest.mark.parametrize("test", ["t", "sign-flip"])
@pytest.mark.parametrize("resolution", [0.0, 1e-6])
@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_differences_that_all_agree_are_judged_by_their_signs(n, resolution, test) -> None:
    p = p_different([0.1] * n, test=test, resolution=resolution, rng=rng())
    assert p == 2 * 0.5**n


def test_a_step_no_larger_than_the_resolution_counts_less_than_the_signs() -> None:
    # Two seeds that lose one image each: t is 1 / sqrt(1/24), with one degree of freedom.
    p = p_different([1.0, 1.0], test="t", resolution=1.0, rng=rng())
    assert p == 0.5
    alone = 2 * scipy.stats.t.sf(math.sqrt(12 * 9), 8)
    assert p_different([1.0] * 9, test="t", resolution=1.0, rng=rng()) == max(alone, 2 * 0.5**9)
    assert p_different([0.25] * 9, test="t", resolution=1.0, rng=rng()) == pytest.approx(
        2 * scipy.stats.t.sf(0.25 * math.sqrt(12 * 9), 8)
    )


@pytest.mark.parametrize("test", ["t", "sign-flip"])
def test_on_the_limit_is_not_beyond_it(test) -> None:
    differences = np.array([0.3, 0.3, 0.3, 0.3, 0.3, 0.3])
    assert p_above(differences, 0.1 + 0.2, test=test, rng=rng()) == 1
    assert p_below(differences, 0.1 + 0.2, test=test, rng=rng()) == 1
    assert p_different(np.zeros(6), test=test, rng=rng()) == 1


@pytest.mark.parametrize("call", [p_above, p_below, p_different])
@pytest.mark.parametrize("test", ["t", "sign-flip"])
def test_one_difference_alone_is_not_tested(call, test) -> None:
    with pytest.raises(ValueError, match="two differences or more, found 1"):
        call([1.0], test=test, rng=rng())


# Equivalence.


@settings(deadline=None, max_examples=100)
@given(VALUES, st.floats(0.01, 2000))
def test_tost_is_that_of_statsmodels(values, margin) -> None:
    theirs = ttost_paired(np.array(values), np.zeros(len(values)), -margin, margin)[0]
    assert tost(values, margin, rng=rng()) == pytest.approx(theirs, rel=1e-6, abs=1e-12)


@settings(deadline=None, max_examples=200)
@given(VALUES, st.floats(0.01, 2000))
def test_equivalence_at_five_percent_is_a_ninety_percent_interval_within_the_margins(values, margin) -> None:
    found = mean_interval(values, 0.90)
    assert found is not None
    edge = min(abs(margin + found.low), abs(margin - found.high))  # type: ignore[operator]
    if edge > 1e-9 * margin:
        assert (tost(values, margin, rng=rng()) < 0.05) == (-margin < found.low and found.high < margin)


@settings(deadline=None, max_examples=100)
@given(VALUES, TESTS, st.floats(0.01, 1000))
def test_a_wider_margin_is_easier_and_the_sign_does_not_matter(values, test, margin) -> None:
    p = tost(values, margin, test=test, rng=rng())
    assert tost(np.negative(values), margin, test=test, rng=rng()) == pytest.approx(p, rel=1e-9)
    assert tost(values, margin * 2, test=test, rng=rng()) <= p * (1 + 1e-9)


def test_the_sign_flip_equivalence_needs_five_seeds() -> None:
    assert tost([0.001, -0.001, 0.002, -0.002], 1.0, test="sign-flip", rng=rng()) == 0.5**4
    assert tost([0.001, -0.001, 0.002, -0.002, 0.0], 1.0, test="sign-flip", rng=rng()) == 0.5**5


def test_two_seeds_without_any_difference_show_no_equivalence() -> None:
    assert tost([0.0, 0.0], 1.0, rng=rng()) == 0.25
    assert tost([0.0] * 6, 1.0, rng=rng()) == 0.5**6
    # Known no better than to a step of 10, they may be 1 apart.
    assert tost([0.0] * 6, 1.0, resolution=10.0, rng=rng()) > 0.2


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan])
def test_a_margin_is_above_zero(margin) -> None:
    with pytest.raises(ValueError, match="margin above 0"):
        tost([1.0, 2.0], margin, rng=rng())


@pytest.mark.parametrize("n", [5, 20, 21, 60])
def test_many_sign_flips_at_once_are_those_one_by_one(n):
    """Up to 20 pairs to the digit; above, within what 9,999 patterns tell."""
    draws = rng(n)
    rows = [draws.normal(effect, 1, n) for effect in np.linspace(0, 0.5, 150)]
    together = sign_flips(rows, rng())
    alone = [sign_flip(row, rng()) for row in rows]
    for one, other in zip(together, alone, strict=True):
        assert one == other if n <= 20 else abs(one - other) <= 5 * math.sqrt(max(one, 1e-3) / 9_999)
    assert sign_flips([np.zeros(n)], rng()) == [1.0]
