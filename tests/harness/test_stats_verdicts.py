from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from cnnbench.inference import Inference
from cnnbench.stats.intervals import Estimate, paired_difference, paired_differences
from cnnbench.stats.paired import p_above, sign_above
from cnnbench.stats.resampling import bca_interval, widened
from cnnbench.stats.signflip import sign_flip
from cnnbench.stats.verdicts import decide, judge, ties

nan = math.nan
T, FLIP = Inference(), Inference(test="sign-flip")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def family(means: dict[str, float], n: int = 8, spread: float = 0.1, seed: int = 0):
    """Arms whose differences have exactly these means, and the standard deviation ``spread``."""
    draw = rng(seed)
    reference = draw.normal(10, 1, n)
    arms = {}
    for name, mean in means.items():
        noise = draw.normal(0, 1, n)
        noise = (noise - noise.mean()) / noise.std(ddof=1) * spread
        arms[name] = (reference + mean + noise, reference)
    return arms


def judged(arms, better="higher", margin=None, inference=T, **options):
    return judge(arms, better=better, margin=margin, inference=inference, rng=rng(), **options)


def test_each_of_the_four_verdicts() -> None:
    arms = family({"up": 1.0, "down": -1.0, "same": 0.0, "near": 0.08})
    verdicts = {name: one.verdict for name, one in judged(arms, margin=0.15).items()}
    assert verdicts == {"up": "better", "down": "worse", "same": "equivalent", "near": "unresolved"}
    lower = {name: one.verdict for name, one in judged(arms, "lower", 0.15).items()}
    assert lower == verdicts | {"up": "worse", "down": "better"}
    assert judged(arms)["same"].verdict == "unresolved"  # no margin, no claim that it would not matter


def test_a_difference_that_is_real_and_smaller_than_the_margin_is_equivalent() -> None:
    found = judged(family({"arm": 0.3}), margin=0.5)["arm"]
    assert found.p_adjusted < 0.001
    assert found.p_equivalence < 0.01
    assert found.verdict == "equivalent"
    assert judged(family({"arm": 0.3}), margin=0.31)["arm"].verdict == "better"


@pytest.mark.parametrize("correction", ["holm", "benjamini-hochberg"])
def test_figures_are_those_of_scipy_and_statsmodels(correction) -> None:
    arms = family({"a": 0.05, "b": 0.08, "c": 0.1, "d": 0.2})
    found = judged(arms, margin=0.15, inference=Inference(correction=correction))
    method = {"holm": "holm", "benjamini-hochberg": "fdr_bh"}[correction]
    p = [scipy.stats.ttest_rel(*pair).pvalue for pair in arms.values()]
    alike = [ttost_paired(*pair, -0.15, 0.15)[0] for pair in arms.values()]
    assert [one.p for one in found.values()] == pytest.approx(p)
    assert [one.p_adjusted for one in found.values()] == pytest.approx(multipletests(p, method=method)[1])
    assert [one.p_equivalence for one in found.values()] == pytest.approx(multipletests(alike, method=method)[1])
    for one, pair in zip(found.values(), arms.values(), strict=True):
        assert one.difference == paired_difference(*pair)
        assert one.p_sign_flip == sign_flip(pair[0] - pair[1], rng())
        assert one.effect_size == pytest.approx(one.difference.mean / 0.1, rel=0.2)
        assert one.improvement.mean == np.mean(pair[0] > pair[1])
        assert one.n == 8


def test_the_sign_flip_test_decides_where_it_is_asked_to() -> None:
    # Five seeds cannot reach 5 %, however plain the difference.
    for n, verdict in ((5, "unresolved"), (6, "better")):
        found = judged(family({"arm": 5.0}, n=n), inference=FLIP)["arm"]
        assert (found.p, found.verdict) == (2 * 0.5**n, verdict)
        assert judged(family({"arm": 5.0}, n=n))["arm"].verdict == "better"
    ten = judged(family({f"arm{i}": 5.0 for i in range(10)}, n=9), inference=FLIP)
    assert {one.verdict for one in ten.values()} == {"better"}
    eight = judged(family({f"arm{i}": 5.0 for i in range(10)}, n=8), inference=FLIP)
    assert {one.verdict for one in eight.values()} == {"unresolved"}


def test_the_bootstrap_interval_is_shown_where_it_is_asked_for() -> None:
    arms = family({"arm": 0.3})
    found = judged(arms, inference=Inference(interval="bca"))["arm"]
    assert found.difference == bca_interval(arms["arm"][0] - arms["arm"][1], rng(), widened(0.95, 8))
    assert replace(found, difference=None) == replace(judged(arms)["arm"], difference=None)


def test_the_number_of_arms_makes_a_verdict_harder() -> None:
    arms = family({f"arm{i}": 0.1 for i in range(10)})
    alone = judged({"arm0": arms["arm0"]})["arm0"]
    among = judged(arms)["arm0"]
    assert alone.p == among.p == pytest.approx(0.025, rel=0.05)
    assert (alone.verdict, among.verdict) == ("better", "unresolved")


# Missing and too few.


def test_a_pair_that_lacks_a_side_changes_nothing() -> None:
    arms = family({"a": 0.1, "b": 0.2})
    more = {
        "a": (np.append(arms["a"][0], [nan, 5.0]), np.append(arms["a"][1], [7.0, nan])),
        "b": (np.insert(arms["b"][0], 3, math.inf), np.insert(arms["b"][1], 3, 1.0)),
    }
    assert judged(more, margin=0.5) == judged(arms, margin=0.5)
    assert judged(more)["a"].n == 8


def test_below_two_seeds_nothing_is_decided() -> None:
    found = judged({"one": ([5.0], [1.0]), "none": ([nan, 1.0], [1.0, nan])}, margin=10.0)
    assert {name: (one.verdict, one.n, one.p, one.p_adjusted) for name, one in found.items()} == {
        "one": ("unresolved", 1, None, None),
        "none": ("unresolved", 0, None, None),
    }
    assert found["one"].difference == Estimate(4.0, None, None, 1)
    assert found["none"].difference is None
    assert found["none"].improvement is None


def test_arms_that_cannot_be_tested_do_not_make_it_harder_for_others() -> None:
    arms = family({"arm": 0.1})
    few = {f"few{i}": ([1.0] + [nan] * 7, [0.0] * 8) for i in range(9)}
    assert judged(arms | few)["arm"] == judged(arms)["arm"]


def test_an_empty_family_has_no_verdicts() -> None:
    assert judged({}) == {}


def test_both_sides_have_equally_many_values() -> None:
    with pytest.raises(ValueError, match="one value a seed from both"):
        judged({"arm": ([1.0], [1.0, 2.0])})


# No spread.


@pytest.mark.parametrize(("n", "verdict"), [(2, "unresolved"), (5, "unresolved"), (6, "better")])
def test_seeds_that_all_differ_by_the_same_decide_from_six_on(n, verdict) -> None:
    found = judged({"arm": ([1.1] * n, [1.0] * n)})["arm"]
    assert found.verdict == verdict
    assert found.effect_size is None


def test_seeds_that_agree_in_everything_are_not_better_nor_worse() -> None:
    found = judged({"arm": ([1.0] * 9, [1.0] * 9)})["arm"]
    assert (found.verdict, found.p, found.p_sign_flip) == ("unresolved", 1, 1)
    assert judged({"arm": ([1.0] * 9, [1.0] * 9)}, margin=0.1)["arm"].verdict == "equivalent"
    assert judged({"arm": ([1.0] * 2, [1.0] * 2)}, margin=0.1)["arm"].verdict == "unresolved"


@pytest.mark.parametrize("n", [1, 3])
def test_a_quantity_without_noise_is_decided_by_any_seed(n) -> None:
    arms = {"more": ([3.0] * n, [2.0] * n), "less": ([1.5] * n, [2.0] * n), "same": ([2.0] * n, [2.0] * n)}
    found = judged(arms, "lower", exact=True)
    assert {name: one.verdict for name, one in found.items()} == {
        "more": "worse",
        "less": "better",
        "same": "equivalent",
    }
    assert all(one.p is None and one.p_adjusted is None and one.improvement is None for one in found.values())
    assert judged(arms, "lower", 0.5, exact=True)["less"].verdict == "equivalent"
    assert judged(arms, "lower", 0.4, exact=True)["less"].verdict == "better"


def test_what_should_have_no_noise_and_has_some_is_tested() -> None:
    arms = {"arm": ([1.0, 2.0, 3.0], [1.5, 1.5, 1.5])}
    assert judged(arms, exact=True) == judged(arms)


# Invariances.

FAMILIES = st.integers(0, 2**31).flatmap(
    lambda seed: st.tuples(st.just(seed), st.integers(1, 5), st.integers(2, 12), st.sampled_from([T, FLIP]))
)


def random_family(seed: int, arms: int, n: int):
    draw = rng(seed)
    reference = draw.normal(0, 1, n)
    values = {f"a{i}": reference + draw.normal(draw.choice([0, 0.5, 2]), 1, n) for i in range(arms)}
    for value in values.values():
        value[draw.random(n) < 0.1] = nan
    return values, reference


def figures(one):
    """All p-values; nan for those that there are none of."""
    found = [one.p, one.p_adjusted, one.p_sign_flip, one.p_equivalence]
    return np.array([nan if p is None else p for p in found])


@settings(deadline=None, max_examples=60)
@given(FAMILIES, st.floats(0.1, 3))
def test_judging_minds_neither_the_order_of_seeds_nor_a_common_shift(drawn, margin) -> None:
    seed, count, n, inference = drawn
    values, reference = random_family(seed, count, n)
    order = rng(seed).permutation(n)
    options = {"margin": margin, "inference": inference}
    base = judged({name: (value, reference) for name, value in values.items()}, **options)
    shuffled = judged({name: (value[order], reference[order]) for name, value in values.items()}, **options)
    moved = judged({name: (value + 3, reference + 3) for name, value in values.items()}, **options)
    turned = judged({name: (-value, -reference) for name, value in values.items()}, "lower", **options)
    for name, one in base.items():
        for other in (shuffled[name], moved[name], turned[name]):
            assert other.verdict == one.verdict
            assert figures(other) == pytest.approx(figures(one), rel=1e-6, nan_ok=True)
            assert other.improvement == one.improvement


@settings(deadline=None, max_examples=60)
@given(FAMILIES, st.floats(0.1, 3))
def test_seen_the_other_way_round_better_is_worse(drawn, margin) -> None:
    seed, count, n, inference = drawn
    values, reference = random_family(seed, count, n)
    options = {"margin": margin, "inference": inference}
    there = judged({name: (value, reference) for name, value in values.items()}, **options)
    back = judged({name: (reference, value) for name, value in values.items()}, **options)
    opposite = {"better": "worse", "worse": "better", "equivalent": "equivalent", "unresolved": "unresolved"}
    for name, one in there.items():
        assert back[name].verdict == opposite[one.verdict]
        assert all(math.isnan(p) or 0 <= p <= 1 for p in figures(one))
        assert one.p is None or one.p_adjusted >= one.p


@pytest.mark.parametrize(
    ("difference", "p", "alike", "verdict"),
    [
        (1.0, 0.05, None, "better"),
        (-1.0, 0.05, None, "worse"),
        (1.0, 0.0501, None, "unresolved"),
        (1.0, 0.01, 0.05, "equivalent"),
        (1.0, 0.01, 0.0501, "better"),
        (0.0, 0.01, None, "unresolved"),
    ],
)
def test_the_level_is_five_percent(difference, p, alike, verdict) -> None:
    assert decide(difference, p, alike, better="higher") == verdict


# The best and its ties.


def best(values, better="higher", inference=T, **options):
    return ties(values, better=better, inference=inference, rng=rng(), **options)


def test_the_best_and_those_that_may_be_it_are_marked() -> None:
    arms = {name: pair[0] for name, pair in family({"a": 0.0, "b": 1.0, "c": 1.02, "d": -1.0}).items()}
    assert best(arms) == {"b", "c"}
    assert best(arms, "lower") == {"d"}


def test_an_arm_that_now_and_then_fails_badly_is_out_where_another_is_ahead_in_every_seed() -> None:
    steady = 0.98 + 0.001 * np.arange(9)
    wild = np.array([0.97, 0.1, 0.96, 0.1, 0.95, 0.97, 0.1, 0.1, 0.96])
    assert scipy.stats.ttest_rel(steady, wild, alternative="greater").pvalue > 0.05 / 8 / 2
    others = {f"as good {place}": np.roll(steady, place) for place in range(6)}
    assert "wild" not in best({"steady": steady, "wild": wild} | others)
    assert best({"steady": steady, "wild": wild} | others) == {"steady", *others}
    # With eight seeds the sign test is not done, and the t test has the whole level.
    few = {name: values[:8] for name, values in ({"steady": steady, "wild": wild} | others).items()}
    assert best(few) == frozenset()


def test_an_arm_behind_in_most_seeds_but_ahead_in_the_mean_stays_in() -> None:
    seldom = np.array([0.0] * 11 + [20.0])
    assert best({"ahead": seldom, "often": np.ones(12)}) == frozenset()
    assert best({"behind": -seldom, "often": np.ones(12)}) == {"often"}


def test_a_mark_on_all_would_say_nothing() -> None:
    arms = {name: pair[0] for name, pair in family({"a": 0.0, "b": 0.0, "c": 0.02}).items()}
    assert best(arms) == frozenset()
    assert best({}) == best({"a": [1.0, 2.0]}) == best({"a": [1.0], "b": [2.0]}) == frozenset()
    plain = {name: pair[0] for name, pair in family({"a": 0.0, "b": 9.0}, n=4).items()}
    assert best(plain) == {"b"}
    assert best(plain, inference=FLIP) == frozenset()


def test_an_arm_that_shares_no_two_seeds_with_others_is_left_aside() -> None:
    arms = {name: pair[0] for name, pair in family({"a": 0.0, "b": 1.0}).items()}
    arms["once"] = np.array([99.0] + [nan] * 7)
    assert best(arms) == {"b"}


def test_of_quantities_without_noise_the_smallest_are_marked() -> None:
    sizes = {"a": [3.0, 3.0], "b": [2.0, nan], "c": [2.0, 2.0]}
    assert best(sizes, "lower", exact=True) == {"b", "c"}
    assert best({"a": [3.0], "b": [3.0]}, "lower", exact=True) == frozenset()


@settings(deadline=None, max_examples=60)
@given(FAMILIES)
def test_an_arm_ahead_of_all_others_in_the_mean_is_never_out(drawn) -> None:
    seed, count, n, inference = drawn
    values = {name: np.nan_to_num(value) for name, value in random_family(seed, count, n)[0].items()}
    found = best(values, inference=inference)
    assert not found or max(values, key=lambda name: values[name].mean()) in found
    assert found < frozenset(values)
    turned = best({name: -value for name, value in values.items()}, "lower", inference)
    assert found == turned


# Many arms.


def one_by_one(values, better, resolution=0.0, *, exact=False):
    """``ties`` by its definition: every pair by itself."""
    sign = 1 if better == "higher" else -1
    told, best = [], []
    for name, own in values.items():
        pairs = [paired_differences(sign * np.array(v), sign * np.array(own)) for k, v in values.items() if k != name]
        pairs = [pair for pair in pairs if pair.size >= (1 if exact else 2)]
        if not pairs:
            continue
        told.append(name)
        level, out = 0.05 / len(pairs), False
        for pair in pairs:
            if exact and np.all(pair == pair[0]):
                out |= bool(pair[0] > 0)
            elif pair.mean() > 0:
                p = p_above(pair, test="t", resolution=resolution, rng=np.random.default_rng(0))
                signs = 2.0**-pair.size <= level / 2
                out |= min(p, sign_above(pair)) <= level / 2 if signs else p <= level
        if not out:
            best.append(name)
    return frozenset(best) if len(best) < len(told) else frozenset()


@pytest.mark.parametrize("seed", range(12))
def test_the_sieve_over_all_pairs_loses_no_arm(seed) -> None:
    rng = np.random.default_rng(seed)
    arms, n = int(rng.integers(2, 40)), int(rng.integers(1, 25))
    values = rng.normal(rng.normal(0, rng.choice([0.0, 0.5, 3.0]), (arms, 1)), 1, (arms, n))
    values += 100 * rng.normal(size=n)  # a seed's luck
    step = 0.0
    if seed % 3 == 0:
        step = 0.5
        values = np.round(values / step) * step
    if seed % 4 == 1:
        values[rng.random((arms, n)) < 0.2] = nan
    if seed % 4 == 2:  # arms that differ by a constant, or not at all
        values[::2] = values[0] + rng.integers(-1, 2, (len(values[::2]), 1))
    if seed % 5 == 4:  # wild seeds: only the signs tell
        values[:, :2] *= 1e4
    named = {f"arm {place}": row for place, row in enumerate(values)}
    exact, better = seed % 2 == 0, ("higher", "lower")[seed % 2]
    found = ties(
        named, better=better, inference=Inference(), resolution=step, rng=np.random.default_rng(0), exact=exact
    )
    assert found == one_by_one(named, better, step, exact=exact)
