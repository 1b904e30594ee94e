from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.stats.intervals import Estimate, mean_interval, paired_differences
from cnnbench.stats.resampling import bca_interval, widened

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=20).filter(lambda v: np.std(v) > 1e-3)
# Coverage of nominal 95 % in percent, for 5, 10 and 20 values, as the docstrings tell it: t, BCa, BCa widened.
COVERAGE = {
    "normal": {5: (95.0, 84.1, 91.6), 10: (95.0, 89.8, 94.3), 20: (94.9, 92.5, 94.7)},
    "lognormal, sigma 0.5": {5: (91.6, 81.1, 89.0), 10: (92.0, 87.6, 92.4), 20: (93.0, 91.1, 93.4)},
    "exponential": {5: (88.3, 80.0, 87.2), 10: (90.0, 87.5, 92.4), 20: (91.7, 91.1, 93.4)},
    "lognormal, sigma 1": {5: (82.3, 73.9, 82.0), 10: (83.8, 82.2, 87.4), 20: (86.8, 87.2, 90.0)},
}
CASES = [(kind, n) for kind in COVERAGE for n in (5, 10, 20)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
@pytest.mark.parametrize("n", [5, 9, 20])
def test_bca_is_that_of_scipy_on_equal_resamples(n, confidence) -> None:
    # Whole numbers: means that are equal are so without rounding too, which scipy would count as below or above.
    values = np.sort(np.round(rng(n).exponential(1000, size=n)))
    ours = bca_interval(values, rng(1), confidence)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=confidence, method="BCa", rng=rng(1)
    ).confidence_interval
    assert ours == Estimate(pytest.approx(values.mean()), pytest.approx(theirs.low), pytest.approx(theirs.high), n)


@settings(deadline=None, max_examples=30)
@given(VALUES, st.randoms(use_true_random=False), st.floats(-10, 10))
def test_bca_minds_no_order_and_moves_with_the_values(values, random, shift) -> None:
    found = bca_interval(values, rng(), resamples=499)
    assert found is not None
    assert min(values) <= found.low < found.mean < found.high <= max(values)
    assert bca_interval([*random.sample(values, len(values)), math.nan], rng(), resamples=499) == found
    moved = bca_interval(np.array(values) + shift, rng(), resamples=499)
    assert moved is not None
    assert (moved.low - shift, moved.high - shift) == pytest.approx((found.low, found.high), abs=1e-2 * np.std(values))


def test_bca_without_spread_or_with_too_few_values() -> None:
    assert bca_interval([], rng()) is None
    assert bca_interval([math.nan], rng()) is None
    assert bca_interval([2.0], rng()) == Estimate(2.0, None, None, 1)
    assert bca_interval([1.0, 2.0, 3.0, 4.0], rng()) == Estimate(2.5, None, None, 4)
    assert bca_interval([0.1] * 2, rng()) == Estimate(0.1, 0.1, 0.1, 2)
    assert bca_interval([0.1] * 9, rng()) == Estimate(0.1, 0.1, 0.1, 9)


def test_widened_levels_give_student_t_for_many_normal_values() -> None:
    # A normal quantile at the widened level, times the bootstrap's spread, is the t interval.
    for n in (5, 20, 100):
        z = scipy.stats.norm.ppf(0.5 + widened(0.95, n) / 2)
        assert z * math.sqrt((n - 1) / n) == pytest.approx(scipy.stats.t.ppf(0.975, n - 1), rel=1e-6)
    assert widened(0.95, 100_000) == pytest.approx(0.95, abs=1e-4)


def test_differences_of_nothing_but_rounding_are_zero() -> None:
    assert paired_differences([0.1 + 0.2, 0.3], [0.3, 0.3]).tolist() == [0, 0]
    assert paired_differences([0.3 + 1e-12, 0.3], [0.3, 0.3]).max() > 0


def drawn(kind: str, shape: tuple[int, int], seed: int) -> tuple[np.ndarray, float]:
    """Values and their true mean."""
    draw = rng(seed)
    if kind == "normal":
        return draw.normal(size=shape), 0.0
    if kind == "exponential":
        return draw.exponential(size=shape), 1.0
    sigma = float(kind.rsplit(" ", 1)[1])
    return draw.lognormal(0, sigma, shape), math.exp(sigma**2 / 2)


def covered(kind: str, n: int, runs: int, resamples: int, seed: int = 0) -> list[float]:
    """Share of runs in which each interval holds the true mean, in percent: t, BCa, BCa widened."""
    values, mean = drawn(kind, (runs, n), seed)
    draw = rng(seed + 1)
    held = np.zeros(3)
    for row in values:
        found = [
            mean_interval(row),
            bca_interval(row, draw, 0.95, resamples),
            bca_interval(row, draw, widened(0.95, n), resamples),
        ]
        held += [one.low <= mean <= one.high for one in found]  # type: ignore[union-attr, operator]
    return list(100 * held / runs)


def near(expected: float, runs: int) -> float:
    """Four standard errors of a share in percent, that of the figure expected (20,000 runs) included."""
    share = expected / 100
    return 400 * math.sqrt(share * (1 - share) * (1 / runs + 1 / 20_000))


@pytest.mark.parametrize(("kind", "n"), [case for case in CASES if "sigma" not in case[0]])
def test_intervals_hold_the_mean_as_often_as_they_say(kind, n) -> None:
    found = covered(kind, n, 400, 499)
    for got, expected in zip(found, COVERAGE[kind][n], strict=True):
        assert abs(got - expected) < near(expected, 400)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "n"), CASES)
def test_intervals_hold_the_mean_as_often_as_they_say_in_20000_runs(kind, n) -> None:
    found = covered(kind, n, 20_000, 999, seed=7)
    print(kind, n, found)
    for got, expected in zip(found, COVERAGE[kind][n], strict=True):
        assert abs(got - expected) < near(expected, 20_000) + 0.3  # fewer resamples than the docstring's
    if kind == "normal":
        assert abs(found[0] - 95) < 1
        assert n == 5 or abs(found[2] - 95) < 1.3
