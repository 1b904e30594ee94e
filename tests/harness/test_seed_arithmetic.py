"""What ``plan`` says of a suite's seeds, before any records and from earlier ones."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from cnnbench.cli import main
from cnnbench.matrix import arms
from cnnbench.plugins import PluginHost
from cnnbench.seed_arithmetic import seed_lines
from cnnbench.suite import parse

_spec = importlib.util.spec_from_file_location("designed_records", Path(__file__).with_name("designed_records.py"))
_helper = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_helper)
designed = _helper.designed

SUITE = """
question = "?"
dataset = "digits"
model = {{ name = "resnet", depth = 8, width = 4 }}
seeds = 5
placebo = true
{more}
"""
ARMS = """
[arms]
silu = { activation = "silu" }
elu = { activation = "elu" }
"""
FACTORIAL = """
[design]
kind = "factorial"
norm = ["batch", "none"]
activation = ["relu", "silu"]
"""


@pytest.fixture(scope="module")
def registry():
    return PluginHost.discover().registry


@pytest.fixture
def lines(registry):
    """``lines(rest of the suite, records, effect)``: the arithmetic as one text."""

    def run(more=ARMS, records=(), effect=None, only=(), seeds=None, **how):
        suite = parse(SUITE.format(more=more).encode(), "suite.toml", registry)
        suite = suite if seeds is None else replace(suite, seeds=tuple(range(seeds)))
        return "\n".join(seed_lines(suite, arms(suite, only), records, effect, **how))

    return run


def records(sd, *, arm=("silu", "elu"), n=200, metric="accuracy", role="arm"):
    """Differences from the baseline with this spread, whatever baseline and seed bring."""
    rng = np.random.default_rng(0)
    found = []
    base = rng.normal(0.8, 0.05, n)
    for name in ("baseline", *arm):
        for seed in range(n):
            own = 0.0 if name == "baseline" else rng.normal(0.01, sd)
            found.append(
                {
                    "arm": name,
                    "role": "baseline" if name == "baseline" else role,
                    "reference": None if name == "baseline" else "baseline",
                    "seed": seed,
                    "status": "ok",
                    "suite": {"name": "suite", "sha256": "0" * 64},
                    "device": "cpu",
                    "metrics": {metric: base[seed] + own},
                }
            )
    return found


def figures(text, after):
    """The figure after some words, and the ends of its interval."""
    found = re.search(re.escape(after) + r" ([\d.]+)(?: \(([\d.]+) to ([\d.]+)\))?", text)
    assert found, text
    return tuple(float(part) for part in found.groups() if part)


def test_without_records_effects_are_told_in_standard_deviations_and_what_a_quick_look_would_tell(lines):
    text = lines()
    assert "seeds: 5 for 2 comparisons; the clearest has to reach p ≤ 2.5 % (Holm)" in text
    assert "an exact sign-flip test can from 7 paired seeds on; with 5 its p is 6.2 % at the least" in text
    (detected,) = figures(text, "2 arms: at 80 % power 5 seeds detect")
    assert detected == pytest.approx(TTestPower().solve_power(nobs=5, alpha=0.025, power=0.8), abs=0.05)
    assert "no earlier records of this suite tell; a quick look with 3 seeds would, to within" in text


def test_earlier_records_tell_the_effect_that_the_seeds_detect(lines):
    text = lines(records=records(0.02))
    middle, low, high = figures(text, "paired differences in accuracy vary by")
    assert low < middle < high
    assert middle == pytest.approx(2.0, rel=0.1)
    assert "pp (SD), by 400 earlier ones" in text
    expected = middle * TTestPower().solve_power(nobs=5, alpha=0.025, power=0.8)
    assert figures(text, "5 seeds detect")[0] == pytest.approx(expected, rel=0.03)
    assert "quick look" not in text
    assert "takes" not in text  # no effect was stated
    assert "another version of the suite's file" in text


def test_a_stated_effect_takes_so_many_seeds(lines):
    text = lines(records=records(0.02), effect=0.01)
    middle, low, high = figures(text, "1.0 pp (--effect) takes")
    spread = figures(text, "vary by")
    peers = [TTestPower().solve_power(effect_size=1 / sd, alpha=0.025, power=0.8) for sd in spread]
    assert (middle, low, high) == pytest.approx(tuple(np.ceil(peers)), rel=0.06)  # of spreads with two digits
    assert low < middle < high


def test_the_margin_is_the_effect_unless_one_is_stated(lines):
    margin = ARMS + "\n[measure]\nmargin = { accuracy = 0.005 }"
    assert "0.50 pp (the suite's margin) takes" in lines(margin, records(0.02))
    assert "margin" not in lines(margin, records(0.02), effect=0.02)


def test_the_placebo_stands_in_where_no_arm_ran(lines):
    text = lines(records=records(0.03, arm=("placebo",), role="placebo"))
    spread = figures(text, "2 arms, taken to vary as the placebo does: paired differences in accuracy vary by")
    assert spread[0] == pytest.approx(3, rel=0.1)


def test_one_wild_arm_does_not_pass_for_all(lines):
    wild = records(0.001) + [r | {"arm": "wild"} for r in records(0.2, arm=("silu",)) if r["arm"] == "silu"]
    text = lines(records=wild, effect=0.01)
    assert "they are uneven: half of them vary by less than 0.1" in text
    assert re.search(r"at 0\.1\d pp it takes 3$", text, re.MULTILINE)
    assert "uneven" not in lines(records=records(0.02))


def test_the_sign_flip_test_needs_its_own_number_of_seeds_where_it_decides(lines):
    flips = ARMS + '\n[statistics]\ntest = "sign-flip"'
    text = lines(flips, records(0.001), effect=0.1)
    assert "5 seeds detect nothing" in text
    assert "10 pp (--effect) takes 7" in text


def test_looks_take_a_few_seeds_more_of_the_sign_flip_test(lines):
    flips = ARMS + '\n[statistics]\ntest = "sign-flip"'
    fixed, looking = (lines(flips, records(0.001), seeds=7, adaptive=adaptive) for adaptive in (False, True))
    assert "from 7 paired seeds on\n" in fixed
    assert "from 8 paired seeds on; with 7 its p is 2.7 % at the least" in looking
    assert "7 seeds detect nothing" in looking
    assert "nothing" not in fixed


def test_the_correction_is_named_as_it_is(lines):
    assert "p ≤ 2.5 % (Holm)" in lines()
    rate = ARMS + '\n[statistics]\ncorrection = "benjamini-hochberg"'
    assert "p ≤ 2.5 % if no other differs (Benjamini-Hochberg)" in lines(rate)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_seed_alone_detects_nothing(lines, seeds):
    text = lines(records=records(0.02), seeds=seeds)
    assert ("1 seed detects nothing" in text) == (seeds == 1)


def test_an_arm_alone_is_compared_with_nothing(lines):
    assert lines(only=("placebo",)) == "seeds: 5; one arm alone is compared with nothing"


def test_a_design_has_families_of_its_own(lines):
    rng = np.random.default_rng(1)
    axes = {"norm": ["batch", "none"], "activation": ["relu", "silu"]}
    earlier = designed("factorial", axes, lambda _, __: {"accuracy": rng.normal(0.9, 0.01)}, seeds=400)
    text = lines(FACTORIAL, earlier, effect=0.01)
    # Each cell varies by 1 pp: an arm's difference by sqrt(2), the mean of two by 1, the difference of two by 2.
    spreads = [float(found) for found in re.findall(r"vary by ([\d.]+)", text)]
    assert spreads == pytest.approx([2**0.5, 1.0, 2.0], rel=0.07)
    assert "3 arms:" in text
    assert "2 main effects:" in text
    assert "1 interactions:" not in text
    assert "1 interaction:" in text
    assert "2 main effects: at 80 % power" in lines(FACTORIAL)
    assert "as they have not the whole design" in lines(FACTORIAL, records(0.02))
    assert "main effects" not in lines(FACTORIAL, only=("norm=none",))


def test_times_are_told_in_percent(lines):
    timed = ARMS + '\n[measure]\nprimary = "latency"\nmetrics = ["latency"]'
    earlier = records(0.03, metric="latency_b1_ratio")
    for record in earlier:
        record["metrics"]["latency_b1_ratio"] = float(np.exp(record["metrics"]["latency_b1_ratio"] - 0.8))
    text = lines(timed, [r for r in earlier if r["arm"] != "baseline"], effect=0.05)
    assert figures(text, "paired differences in latency b1 vary by")[0] == pytest.approx(6, rel=0.1)  # with the luck
    assert "% (SD)" in text
    assert "5.0 % (--effect) takes" in text


@pytest.mark.parametrize(
    ("metric", "words"),
    [("params", "has hardly any noise: one seed tells it"), ("train_time", "gets no verdict, from however many seeds")],
)
def test_what_seeds_do_not_decide_is_said(lines, metric, words):
    assert words in lines(ARMS + f'\n[measure]\nprimary = "{metric}"\nmetrics = ["{metric}"]')


def test_an_effect_is_a_number_above_zero(tmp_path, capsys):
    assert main(["plan", str(tmp_path / "suite.toml"), "--effect", "0"]) == 2
    assert "--effect: expected a number above 0, got 0" in capsys.readouterr().err


def test_an_effect_that_is_no_number_says_what_was_expected(capsys):
    with pytest.raises(SystemExit):
        main(["plan", "suite.toml", "--effect", "abc"])
    assert "--effect: expected a number, got 'abc'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("effect", "words"), [("5", ": did you mean 0.05?"), ("500", ", expected at most 1\n"), ("1", "")]
)
def test_an_effect_on_a_share_is_at_most_one(tiny_suite, tmp_path, monkeypatch, capsys, effect, words):
    monkeypatch.chdir(tmp_path)
    suite = tmp_path / "tiny.toml"
    suite.write_text(tiny_suite({"silu": '{ activation = "silu" }'}, seeds=2))
    code = main(["plan", str(suite), "--effect", effect])
    assert (code, f"--effect: accuracy is a share{words}" in capsys.readouterr().err) == (
        (2, True) if words else (0, False)
    )
