"""How often verdicts are wrong: simulated families of arms that share one baseline."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from cnnbench.inference import Inference
from cnnbench.stats.verdicts import LEVEL, judge, ties

TESTS = {"t": Inference(), "sign-flip": Inference(test="sign-flip")}
SIZES = [(n, arms) for n in (5, 10, 20) for arms in (1, 5, 10)]
ERRORS = ["normal", "lognormal", "rounded"]


def drawn(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Results of networks that are all alike; the first is the baseline's. Rounded ones move in steps of 1."""
    draw = np.random.default_rng(seed)
    if kind == "lognormal":
        return draw.lognormal(size=shape)
    values = draw.normal(size=shape)
    return np.round(0.7 * values) if kind == "rounded" else values


def families(kind: str, n: int, arms: int, runs: int, seed: int = 0):
    for values in drawn(kind, (runs, arms + 1, n), seed):
        yield {f"arm{i}": (own, values[0]) for i, own in enumerate(values[1:])}


def false_shares(kind: str, n: int, arms: int, test: str, runs: int, margin: float | None = None) -> dict[str, float]:
    """Share of families with even one verdict of a kind. With a margin every arm truly differs by just that."""
    false = dict.fromkeys(("better or worse", "equivalent"), 0)
    rng = np.random.default_rng(1)
    for family in families(kind, n, arms, runs):
        moved = {name: (own + (margin or 0.0), other) for name, (own, other) in family.items()}
        found = judge(
            moved,
            better="higher",
            margin=margin,
            inference=TESTS[test],
            resolution=1.0 if kind == "rounded" else 0.0,
            rng=rng,
        )
        said = {one.verdict for one in found.values()}
        false["better or worse"] += bool(said & {"better", "worse"})
        false["equivalent"] += "equivalent" in said
    return {name: count / runs for name, count in false.items()}


def most(runs: int, level: float = LEVEL) -> float:
    """What a share of at most ``level`` exceeds by chance once in 10,000 times."""
    return float(scipy.stats.binom.isf(1e-4, runs, level)) / runs


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(("n", "arms"), [(5, 10), (10, 5)])
@pytest.mark.parametrize("kind", ERRORS)
def test_techniques_that_do_nothing_are_seldom_called_different(kind, n, arms, test) -> None:
    assert false_shares(kind, n, arms, test, 200)["better or worse"] <= most(200)


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(("n", "arms"), [(5, 5), (10, 5)])
def test_a_difference_as_large_as_the_margin_is_seldom_called_equivalent(n, arms, test) -> None:
    assert false_shares("normal", n, arms, test, 200, margin=6.0)["equivalent"] <= most(200)


def test_without_the_correction_the_simulation_would_show_it() -> None:
    """The check above can fail: ten arms, each by itself at 5 %."""
    alone = [
        min(
            one.p
            for one in judge(
                f, better="higher", margin=None, inference=TESTS["t"], rng=np.random.default_rng()
            ).values()
        )
        for f in families("normal", 10, 10, 200)
    ]
    assert np.mean(np.array(alone) <= LEVEL) > most(200)


def best_out(n: int, arms: int, test: str, runs: int, spread: float = 1.0) -> float:
    """Share of runs in which the best arm is not marked while others are: all are equally good, the worst case.

    Its standard deviation is ``spread`` of the others'.
    """
    rng = np.random.default_rng(1)
    out = 0
    for values in drawn("normal", (runs, arms, n), 3):
        named = {f"arm{i}": own if i else spread * own for i, own in enumerate(values)}
        found = ties(named, better="higher", inference=TESTS[test], rng=rng)
        out += bool(found) and "arm0" not in found
    return out / runs


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(("n", "arms"), [(5, 3), (10, 6)])
def test_the_truly_best_arm_is_seldom_left_without_its_mark(n, arms, test) -> None:
    assert best_out(n, arms, test, 200) <= most(200)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("n", "arms", "spread"), [(3, 10, 0.1), (3, 30, 0.1), (5, 30, 1.0), (9, 10, 1.0), (20, 30, 0.2)]
)
def test_the_truly_best_arm_in_20000_runs(n, arms, spread) -> None:
    share = best_out(n, arms, "t", 20_000, spread)
    print(n, arms, spread, share)
    assert share <= most(20_000)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(("n", "arms"), SIZES)
@pytest.mark.parametrize("kind", ERRORS)
def test_false_differences_in_20000_families(kind, n, arms, test) -> None:
    share = false_shares(kind, n, arms, test, 20_000)["better or worse"]
    print(kind, n, arms, test, share)
    assert share <= most(20_000)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(("n", "arms"), SIZES)
def test_false_equivalence_in_20000_families(n, arms, test) -> None:
    share = false_shares("normal", n, arms, test, 20_000, margin=6.0)["equivalent"]
    print(n, arms, test, share)
    assert share <= most(20_000)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(("n", "arms"), [(5, 3), (10, 6), (20, 10)])
def test_the_truly_best_arm_is_marked_in_5000_runs(n, arms, test) -> None:
    share = best_out(n, arms, test, 5_000)
    print(n, arms, test, share)
    assert share <= most(5_000)
