"""What looking costs and saves: errors of whole families under ``--seeds auto``, and trials beside a fixed design.

Effects and margins are in standard deviations of the paired differences. Each family has ten arms that share a
baseline. ``CNNBENCH_BENCHMARK_FAMILIES`` sets how many are drawn; ``-s`` shows the figures.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from scipy import stats

from cnnbench.inference import Inference
from cnnbench.stats.looks import looks_for
from cnnbench.stats.multiplicity import holm
from cnnbench.stats.sequential import judge_sequentially

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

FAMILIES = int(os.environ.get("CNNBENCH_BENCHMARK_FAMILIES", "1000"))
MOST = 20
LOOKS = looks_for(MOST)


def normal(rng, size):
    return rng.normal(size=size)


def skewed(rng, size):
    """Skewness 1, as accuracies near their ceiling have it."""
    return 2 - rng.gamma(4, 0.5, size=size)


def draw(rng, noise, effects):
    """Values of the arms, [10 x seeds], and of the baseline."""
    half = np.sqrt(0.5)  # so that a difference has variance 1
    return half * noise(rng, (len(effects), MOST)) + np.array(effects)[:, None], half * noise(rng, MOST)


def simulate(noise, effects, margin):
    """Families with a false difference, with a false equivalence, with either; trials; correct decisions by arm."""
    rng = np.random.default_rng(20)
    false = np.zeros(3, int)
    trials, right = [], np.zeros(len(effects))
    for _ in range(FAMILIES):
        arms, baseline = draw(rng, noise, effects)
        found = judge_sequentially(
            {str(place): (row, baseline) for place, row in enumerate(arms)},
            looks=LOOKS,
            better="higher",
            margin=margin,
            inference=Inference(),
            rng=rng,
        )
        wrong = {"different": False, "alike": False}
        for place, (effect, one) in enumerate(zip(effects, found.values(), strict=True)):
            told = {"better": 1, "worse": -1}.get(one.verdict, 0)
            wrong["different"] |= told != 0 and told != np.sign(effect)
            wrong["alike"] |= one.verdict == "equivalent" and abs(effect) >= (margin or 0)
            right[place] += (told == np.sign(effect) != 0) or (one.verdict == "equivalent" and abs(effect) < margin)
        false += [wrong["different"], wrong["alike"], any(wrong.values())]
        trials.append(sum(one.n for one in found.values()) + max(one.n for one in found.values()))
    return false, float(np.mean(trials)), right / FAMILIES


def fixed(noise, effects, n):
    """The fixed design's families with a false difference, and its correct decisions by arm."""
    rng = np.random.default_rng(20)
    false, right = 0, np.zeros(len(effects))
    for _ in range(FAMILIES):
        arms, baseline = draw(rng, noise, effects)
        tests = stats.ttest_1samp(arms[:, :n] - baseline[:n], 0, axis=1)
        called = np.array(holm(tests.pvalue.tolist())) <= 0.05
        correct = np.sign(tests.statistic) == np.sign(effects)
        false += bool(np.any(called & ~correct))
        right += called & correct
    return false, right / FAMILIES


CASES = {
    "no effects": ([0.0] * 10, None),
    "half without effect": ([0.0] * 5 + [1.0, 1.5, 2.0, 3.0, 5.0], None),
    "no effects, margin 1": ([0.0] * 10, 1.0),
    "all at the margin 1": ([1.0, -1.0] * 5, 1.0),
    "none, at the margin 1.5, and far": ([0.0] * 4 + [1.5, -1.5] * 2 + [4.0, -4.0], 1.5),
}


@pytest.mark.parametrize("noise", [normal, skewed], ids=lambda noise: noise.__name__)
@pytest.mark.parametrize("case", CASES)
def test_false_verdicts_in_families_of_ten(case, noise):
    effects, margin = CASES[case]
    (different, alike, either), _, _ = simulate(noise, effects, margin)
    print(
        f"\n{case}, {noise.__name__}: of {FAMILIES} families {different} with a false difference, {alike} with a false "
        f"equivalence, {either} with either; the fixed design of {MOST} seeds: {fixed(noise, effects, MOST)[0]}"
    )
    most = stats.binom.ppf(0.999, FAMILIES, 0.05)
    assert different <= most
    assert alike <= most


MIXES = {
    "5 clear of 4 sd, 5 without effect": [4.0] * 5 + [0.0] * 5,
    "8 clear of 4 sd, 2 without effect": [4.0] * 8 + [0.0] * 2,
    "effects 1, 1, 1.5, 2, 3, 4, 6; 3 without": [1.0, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0] + [0.0] * 3,
}


@pytest.mark.parametrize("mix", MIXES)
def test_trials_beside_a_fixed_design_of_the_same_power(mix):
    """The same power to find an effect of one standard deviation among nine arms without any."""
    single = [1.0] + [0.0] * 9
    _, _, right = simulate(normal, single, None)
    sizes = range(LOOKS[0], MOST + 1)
    n = next(n for n in sizes if n == MOST or fixed(normal, single, n)[1][0] >= right[0])
    _, trials, found = simulate(normal, MIXES[mix], None)
    effects = np.array(MIXES[mix]) != 0
    share, beside = found[effects].mean(), fixed(normal, MIXES[mix], n)[1][effects].mean()
    print(
        f"\n{mix}: {trials:.0f} trials, fixed design of {n} seeds {11 * n}: ratio {trials / (11 * n):.2f}; effects "
        f"decided {share:.3f} and {beside:.3f}; power at 1 sd {right[0]:.3f} ({FAMILIES} families)"
    )
    assert trials < 0.85 * 11 * n
    assert share > beside - 0.03
