"""Comparing two runs: who may be compared, what counts as a regression, and what is not cried over."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.cli import _parser, main
from cnnbench.compare import SAME_NETWORK, SHARED, compare
from cnnbench.compare_notes import notes
from cnnbench.compare_text import Change, _shown
from cnnbench.environment import other_machine
from cnnbench.errors import UsageError
from cnnbench.frame import current
from cnnbench.pairs import Pair
from cnnbench.quantities import METRICS, quantities
from cnnbench.shifts import Shift, interval_shift, own_error, paired_shift
from cnnbench.stats.multiplicity import holm
from cnnbench.tolerances import DEFAULTS, EXACT, OF_THE_MACHINE, parse_tolerances

_spec = importlib.util.spec_from_file_location("synthetic_records", Path(__file__).with_name("synthetic_records.py"))
synthetic = importlib.util.module_from_spec(_spec)
sys.modules["synthetic_records"] = synthetic
_spec.loader.exec_module(synthetic)
Run, wobble = synthetic.Run, synthetic.wobble

TWO = {"baseline": "two", "arm": "two"}
"""Both arms' code changed."""


def result(before, after, fail_on=None):
    tolerances = DEFAULTS if fail_on is None else parse_tolerances(fail_on, METRICS)
    return compare(current(before.records), current(after.records), tolerances)


def verdicts(before, after, fail_on=None):
    """Verdict by arm and key."""
    return {(c.arm, c.quantity.key): c.verdict for c in result(before, after, fail_on).comparisons}


def timed(baseline, arm):
    """Latencies of two arms, whose seeds differ a little."""
    return {
        "baseline": {"latency_b1_ms": wobble(baseline, 0.01, 1)},
        "arm": {"latency_b1_ms": wobble(arm, 0.01, 2)},
    }


def quality(accuracy, salt=0, share=0.002):
    return {"baseline": {"accuracy": wobble(accuracy, share, salt)}}


# Tolerances


@pytest.mark.parametrize(
    ("text", "name", "amount", "relative"),
    [
        ("accuracy:0.5pp", "accuracy", 0.005, False),
        ("accuracy: 2 %", "accuracy", 0.02, True),
        ("latency:10%", "latency", 0.1, True),
        ("latency:2ms", "latency", 2.0, False),
        ("size:0%", "size", 0.0, True),
        ("size:10KiB", "size", 10240.0, False),
        ("params:.5k", "params", 500.0, False),
        ("energy:3mJ", "energy", 3.0, False),
        ("nll:0.02nats", "nll", 0.02, False),
        ("max_difference:0.1", "max_difference", 0.1, False),
    ],
)
def test_a_tolerance_is_read_in_the_metrics_unit(text, name, amount, relative):
    found = parse_tolerances([text], METRICS)
    assert list(found) == [name]
    assert found[name].amount == pytest.approx(amount)
    assert found[name].relative is relative


def test_several_tolerances_stand_in_one_word_or_in_many():
    assert parse_tolerances(["accuracy:1pp,latency:5%", "size:0%"], METRICS) == parse_tolerances(
        ["accuracy:1pp", "latency:5%", "size:0%"], METRICS
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("acuracy:0.5pp", "unknown metric 'acuracy': did you mean 'accuracy'?"),
        ("latency_b1_ms:5%", "unknown metric 'latency_b1_ms': did you mean"),
        ("accuracy", "expected METRIC:TOLERANCE, such as accuracy:0.5pp or latency:10%, got 'accuracy'"),
        ("accuracy:", "expected METRIC:TOLERANCE"),
        ("accuracy:1pp,", "expected METRIC:TOLERANCE"),
        ("accuracy:0.5", "expected pp or % (of the value before) as the unit, got ''"),
        ("latency:5pp", "expected ms or % (of the value before) as the unit, got 'pp'"),
        ("accuracy:-1pp", "expected a number from 0 with its unit: pp or % (of the value before), got '-1pp'"),
        ("accuracy:nan%", "expected a number from 0"),
        ("accuracy:1pp,accuracy:2pp", "accuracy is named twice"),
        ("params_trainable:1%", "params_trainable can't regress"),
        ("my_metric:1", "my_metric can't regress"),
        ("top5:1pp", "these results have no top5; they have "),
    ],
)
def test_a_wrong_tolerance_is_refused_in_one_line(text, said):
    with pytest.raises(UsageError, match=re.escape(said)) as error:
        parse_tolerances([text], [*(set(METRICS) - {"top5"}), "my_metric"])
    assert str(error.value).startswith("--fail-on: ")
    assert "\n" not in str(error.value)


@given(st.sampled_from(METRICS), st.floats(0, 1e6), st.booleans())
def test_every_metric_takes_both_forms_and_reads_back(name, amount, relative):
    (quantity,) = quantities([name], [1])
    unit = "%" if relative else "pp" if quantity.unit == "%" else quantity.unit.partition("/")[0]
    text = f"{name}:{amount:.3f}{unit}"
    if quantity.better == "neither":
        with pytest.raises(UsageError):
            parse_tolerances([text], METRICS)
        return
    found = parse_tolerances([text], METRICS)[name]
    shown = found.amount * (100 if relative else quantity.factor)
    assert shown == pytest.approx(amount, abs=0.0006)
    assert found.relative is relative


def test_defaults_and_kinds_name_metrics_that_there_are():
    assert set(DEFAULTS) | EXACT | OF_THE_MACHINE <= set(METRICS)
    assert all(quantities([name], [1])[0].better != "neither" for name in DEFAULTS)


# Statistics


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=12), st.floats(-1, 1))
def test_a_shifts_p_is_the_paired_t_tests(values, limit):
    data = np.round(np.asarray(values), 3)
    if np.ptp(data) < 0.01:
        return
    shift = paired_shift(data, np.zeros_like(data))
    above = scipy.stats.ttest_1samp(data, limit, alternative="greater").pvalue
    assert shift.p_above(limit) == pytest.approx(above, abs=1e-9)
    assert shift.p_below(limit) == pytest.approx(1 - above, abs=1e-9)
    known = scipy.stats.ttest_1samp(data, 0).confidence_interval(0.95)
    assert shift.interval == pytest.approx((known.low, known.high))


def test_one_comparison_is_called_exactly_where_its_interval_lies_beyond():
    for shift in (Shift(1.0, 0.3, 4, 5), Shift(1.0, 0.4, 4, 5), Shift(2.0, 0.3, None, 1)):
        low, _ = shift.interval
        assert 2 * shift.p_above(low - 1e-6) < 0.05 < 2 * shift.p_above(low + 1e-6)


def test_a_shift_without_spread_is_no_division_by_zero_and_as_large_as_the_limit_is_not_beyond():
    shift = paired_shift([1.3, 1.3, 1.3], [1.2, 1.2, 1.2])
    assert (shift.p_above(0.05), shift.p_above(0.1), shift.p_above(0.2)) == (0.0, 1.0, 1.0)
    assert paired_shift([1.0], [2.0]).p_below(0.5) == 1.0


def test_two_seeds_that_lose_one_image_each_prove_nothing_and_eight_do():
    for n, proven in ((2, False), (8, True)):
        shift = paired_shift([0.90] * n, [0.91] * n, resolution=0.01)
        assert (2 * shift.p_below(0.0) < 0.05) is proven


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_is_the_closed_test_of_bonferroni(p_values):
    adjusted = holm(p_values)
    places = range(len(p_values))
    for i in places:
        families = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(places, size) if i in s]
        closed = max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in families)
        assert adjusted[i] == pytest.approx(closed)


def test_the_error_behind_an_interval_gives_that_interval_back():
    error = own_error(0.95, 1.05)
    low, high = interval_shift([(0.0, error)]).interval
    assert high - low == pytest.approx(math.log(1.05 / 0.95))
    assert interval_shift([(0.1, error), (0.3, error)]).mean == pytest.approx(0.2)
    assert interval_shift([(0.1, error)] * 2).error == pytest.approx(error / math.sqrt(2))


# Quality


def test_a_loss_beyond_chance_is_a_regression_a_gain_an_improvement():
    before = Run(quality(0.90))
    assert verdicts(before, Run(quality(0.88, 1), code="two")) == {("baseline", "accuracy"): "regressed"}
    assert verdicts(before, Run(quality(0.92, 1), code="two")) == {("baseline", "accuracy"): "improved"}
    assert verdicts(before, Run(quality(0.8999, 1), code="two")) == {("baseline", "accuracy"): "no change shown"}


def test_a_loss_within_the_tolerance_is_none():
    before, after = Run(quality(0.90)), Run(quality(0.88, 1), code="two")
    assert verdicts(before, after, ["accuracy:1pp"])["baseline", "accuracy"] == "regressed"
    assert verdicts(before, after, ["accuracy:3pp"])["baseline", "accuracy"] == "no change shown"
    assert verdicts(before, after, ["accuracy:1%"])["baseline", "accuracy"] == "regressed"
    assert verdicts(before, after, ["accuracy:3%"])["baseline", "accuracy"] == "no change shown"


def test_of_a_metric_that_should_be_low_a_rise_is_the_regression():
    low = {"baseline": {"accuracy": 0.9, "nll": wobble(0.3, 0.01)}}
    high = {"baseline": {"accuracy": 0.9, "nll": wobble(0.4, 0.01, 1)}}
    assert verdicts(Run(low), Run(high, code="two"))["baseline", "nll"] == "regressed"
    assert verdicts(Run(high), Run(low, code="two"))["baseline", "nll"] == "improved"


def test_only_named_metrics_decide_and_the_others_are_shown():
    found = verdicts(
        Run({"baseline": {"accuracy": wobble(0.9, 0.002), "params": 100.0}}),
        Run({"baseline": {"accuracy": wobble(0.8, 0.002), "params": 100.0}}, code="two"),
        ["params:0%"],
    )
    assert found == {("baseline", "accuracy"): "shown only", ("baseline", "params"): "no change shown"}


def test_one_seed_gives_no_interval_and_is_not_called():
    found = result(Run(quality(0.9), seeds=1), Run(quality(0.4), seeds=1, code="two")).comparisons[0]
    assert (found.verdict, found.reason) == ("not compared", "1 seed gives no interval")
    assert found.evidence.after == pytest.approx(0.4, abs=0.01)


def test_a_plugins_metric_is_shown_and_never_fails():
    found = verdicts(
        Run({"baseline": {"accuracy": 0.9, "mine": 5.0}}), Run({"baseline": {"accuracy": 0.9, "mine": 1.0}})
    )
    assert found["baseline", "mine"] == "shown only"


def test_exact_metrics_need_one_seed_and_no_correction():
    before = Run({"baseline": {"accuracy": 0.9, "params": 1000.0, "size_bytes": 4096.0}}, seeds=1)
    after = Run({"baseline": {"accuracy": 0.9, "params": 1001.0, "size_bytes": 4000.0}}, seeds=1, code="two")
    found = result(before, after)
    by_key = {c.quantity.key: c for c in found.comparisons}
    assert (by_key["params"].verdict, by_key["params"].p) == ("regressed", None)
    assert by_key["size_bytes"].verdict == "improved"
    assert verdicts(before, after, ["params:1%"])["baseline", "params"] == "no change shown"


# Latency and machines


def test_a_slower_arm_beside_an_unchanged_baseline_regresses_also_where_the_machine_is_slower_or_faster():
    for drift in (1.0, 1.3, 0.7):
        found = verdicts(Run(timed(1, 2)), Run(timed(1, 2.4), code={"arm": "two"}, drift=drift))
        assert found["arm", "latency_b1_ms"] == "regressed", drift
        assert found["baseline", "latency_b1_ms"] == "no change shown"


def test_a_slower_machine_is_no_regression_of_any_code_that_is_the_same_or_keeps_its_ratio():
    before = Run(timed(1, 2))
    for code in ("one", {"arm": "two"}):
        found = result(before, Run(timed(1, 2), code=code, drift=1.4))
        assert found.regressions == 0
        shift = found.comparisons[-1].evidence.shift
        assert math.expm1(shift.mean) == pytest.approx(0.4, abs=0.01), "shown all the same"


def test_a_slower_baseline_regresses_by_its_own_time_and_the_other_arm_is_not_blamed_or_praised():
    found = verdicts(Run(timed(1, 2)), Run(timed(1.3, 2), code=TWO))
    assert found == {("baseline", "latency_b1_ms"): "regressed", ("arm", "latency_b1_ms"): "no change shown"}


def test_a_faster_baseline_does_not_make_the_others_slower():
    found = verdicts(Run(timed(1, 2)), Run(timed(0.7, 2), code=TWO))
    assert found == {("baseline", "latency_b1_ms"): "improved", ("arm", "latency_b1_ms"): "no change shown"}


def test_where_all_code_changed_an_arm_slower_by_itself_and_beside_the_baseline_regresses():
    found = verdicts(Run(timed(1, 2)), Run(timed(1, 2.5), code=TWO))
    assert found == {("baseline", "latency_b1_ms"): "no change shown", ("arm", "latency_b1_ms"): "regressed"}


def test_what_slows_all_down_shows_in_the_baselines_row_with_the_other_thing_that_it_may_be():
    for after in (Run(timed(1.3, 2.6), code=TWO), Run(timed(1, 2), code=TWO, drift=1.3)):
        found = result(Run(timed(1, 2)), after)
        assert [(c.verdict, c.reason) for c in found.comparisons] == [("regressed", SHARED), ("no change shown", "")]
        assert (found.regressions, found.explained) == (1, True), "hidden would cost more than looked into"


def test_what_slows_the_baseline_alone_is_not_laid_at_the_machines_door():
    for after in (timed(1.3, 2), timed(1.3, 1.9), timed(1.3, 3.8)):
        found = result(Run(timed(1, 2)), Run(after, code=TWO))
        assert (found.comparisons[0].verdict, found.comparisons[0].reason) == ("regressed", "")
        assert not found.explained


def test_a_baseline_by_itself_has_no_other_arm_to_move_alike():
    before, after = ({"baseline": {"latency_b1_ms": wobble(time, 0.01)}} for time in (1, 1.3))
    (found,) = result(Run(before), Run(after, code="two")).comparisons
    assert (found.verdict, found.reason, found.by_itself) == ("regressed", "", True)


def test_energy_has_no_ratio_and_says_so_too():
    def arms(factor):
        return {arm: {"energy_inference_mj": wobble(factor * e, 0.01, e)} for arm, e in (("baseline", 5), ("arm", 9))}

    for factors, reason in (((1.4, 1.4), SHARED), ((1.4, 1.0), "")):
        after = {**arms(factors[0]), "arm": arms(factors[1])["arm"]}
        found = result(Run(arms(1)), Run(after, code=TWO)).comparisons[0]
        assert (found.verdict, found.reason) == ("regressed", reason)


def same_training(*runs):
    """The runs, whose networks are trained by the same code, so that only what measures them differs."""
    for record in (record for run in runs for record in run.records):
        record["stages"]["train"] = f"train-{record['arm']}-{record['seed']}"
    return runs


def test_a_network_that_is_the_same_does_not_regress_by_what_measures_it():
    before, after = same_training(Run(timed(1, 2)), Run(timed(1, 2), code=TWO, drift=1.4))
    found = result(before, after)
    assert [(c.verdict, c.reason) for c in found.comparisons] == [("no change shown", SAME_NETWORK)] * 2
    after.of("baseline")[0]["stages"]["compress"] = "pruned"
    assert result(before, after).comparisons[0].verdict == "regressed"


def test_beside_a_network_that_is_the_same_the_ratio_decides_alone():
    before, after = same_training(Run(timed(1, 2)), Run(timed(1, 2.4), code=TWO, drift=0.7))
    for record in after.of("arm"):
        record["stages"]["train"] = "another"
    base, arm = result(before, after).comparisons
    assert (base.reason, arm.verdict, arm.evidence.steady) == (SAME_NETWORK, "regressed", True)


def test_what_a_runtime_serves_may_regress_though_the_network_is_the_same():
    before, after = same_training(Run(timed(1, 2)), Run(timed(1, 2), code=TWO, drift=1.4))
    for record in (*before.records, *after.records):
        record["settings"]["techniques"]["runtime"] = [{"slot": "runtime", "name": "mine", "options": {}}]
    assert result(before, after).comparisons[0].verdict == "regressed"


def test_without_a_reference_the_arms_own_time_decides():
    before, after = Run(timed(1, 2), reference=""), Run(timed(1, 2.4), reference="", code=TWO)
    assert verdicts(before, after)["arm", "latency_b1_ms"] == "regressed"


def test_a_ratio_to_another_experiment_decides_nothing():
    after = Run(timed(0.5, 2), code=TWO)
    for record in after.of("baseline"):
        record["settings"]["model"]["options"]["width"] = 2
    (base, arm) = result(Run(timed(1, 2)), after).comparisons
    assert base.verdict == "not compared"
    assert (arm.verdict, arm.evidence.beside) == ("no change shown", None)


def test_few_percent_are_within_the_default_tolerance_of_latency():
    assert (
        verdicts(Run(timed(1, 2)), Run(timed(1, 2.06), code={"arm": "two"}))["arm", "latency_b1_ms"]
        == "no change shown"
    )


def test_one_seed_of_latency_goes_by_the_samples_own_interval():
    for spread, verdict in ((0.01, "regressed"), (0.2, "no change shown")):
        before = Run(timed(1, 2), seeds=1, spread=spread)
        after = Run(timed(1, 2.4), seeds=1, spread=spread, code={"arm": "two"})
        assert verdicts(before, after)["arm", "latency_b1_ms"] == verdict
    for record in before.records:
        record["details"]["latency"]["1"].update(interval_ms=None, ratio=None)
    assert verdicts(before, after)["arm", "latency_b1_ms"] == "not compared"


def test_throughput_is_latency_the_other_way_round():
    before = {"baseline": {"throughput_b32": wobble(100, 0.01), "latency_b32_ms": wobble(10, 0.01)}}
    after = {"baseline": {"throughput_b32": wobble(80, 0.01, 1), "latency_b32_ms": wobble(12.5, 0.01, 1)}}
    found = verdicts(Run(before), Run(after, code="two"), ["throughput:10%", "latency:10%"])
    assert found["baseline", "throughput_b32"] == found["baseline", "latency_b32_ms"] == "regressed"


def test_throughput_beside_the_reference_falls_where_the_ratio_of_times_grows():
    def arms(slow):
        times = {"baseline": wobble(1, 0.01, 1), "arm": wobble(2 * slow, 0.01, 2)}
        return {
            arm: {"latency_b1_ms": time, "throughput_b1": lambda seed, time=time: 1000 / time(seed)}
            for arm, time in times.items()
        }

    found = verdicts(Run(arms(1)), Run(arms(1.3), code={"arm": "two"}), ["throughput:10%"])
    assert found["arm", "throughput_b1"] == "regressed"
    assert found["baseline", "throughput_b1"] == "no change shown"


def test_other_machines_are_told_and_their_timings_not_compared_but_quality_is():
    arms = {"baseline": {"accuracy": wobble(0.9, 0.002), "latency_b1_ms": 1.0, "energy_inference_mj": 5.0}}
    slow = {"baseline": {"accuracy": wobble(0.8, 0.002), "latency_b1_ms": 9.0, "energy_inference_mj": 50.0}}
    xeon = {"cpu": "Intel Xeon 8370C", "device": "Intel Xeon 8370C"}
    found = {c.quantity.key: c for c in result(Run(arms), Run(slow, code="two", environment=xeon)).comparisons}
    assert found["accuracy"].verdict == "regressed"
    for key in ("latency_b1_ms", "energy_inference_mj"):
        assert found[key].verdict == "not compared"
        assert found[key].reason == "other machine (AMD EPYC 7763, Intel Xeon 8370C)"
    threads = {c.quantity.key: c for c in result(Run(arms), Run(slow, code="two", threads=1)).comparisons}
    assert threads["latency_b1_ms"].reason == "other machine (2 threads, 1 threads)"


@pytest.mark.parametrize(
    ("changes", "other"),
    [
        ({"platform": "Linux-6.9", "python": "3.13.0", "torch": "2.16", "ram": "1 GiB", "driver": "550"}, ""),
        ({"cpu": "amd  epyc 7763", "device": "AMD EPYC(TM) 7763"}, ""),
        ({"cpu": "AMD EPYC 9554", "device": "AMD EPYC 9554"}, "AMD EPYC 7763, AMD EPYC 9554"),
        ({"device": "NVIDIA H200"}, "AMD EPYC 7763, NVIDIA H200"),
        ({"cores_usable": "8"}, "2 cores, 8 cores"),
        ({"cores_usable": ""}, ""),
    ],
)
def test_machines_are_told_apart_by_model_and_cores_alone(changes, other):
    assert other_machine(synthetic.ENVIRONMENT, {**synthetic.ENVIRONMENT, **changes}) == other


def test_where_the_threads_are_known_more_cores_do_not_matter():
    assert other_machine({"cores_usable": "2"}, {"cores_usable": "8"}, threads_known=True) == ""


def test_an_estimated_energy_never_fails_and_a_measured_one_does():
    arms = [{"baseline": {"energy_inference_mj": wobble(value, 0.01)}} for value in (5.0, 9.0)]
    for method, verdict in (("estimated", "not compared"), ("measured", "regressed")):
        before, after = Run(arms[0]), Run(arms[1], code="two")
        for record in (*before.records, *after.records):
            record["methods"]["energy_inference_mj"] = method
        assert verdicts(before, after, ["energy:10%"])["baseline", "energy_inference_mj"] == verdict


# What may be compared


def test_other_settings_are_refused_with_the_reason():
    after = Run(quality(0.5), settings={"recipe": {**synthetic.SETTINGS["recipe"], "epochs": 2}})
    (found,) = result(Run(quality(0.9)), after).comparisons
    assert (found.verdict, found.reason) == ("not compared", "other settings: recipe.epochs 1, 2")


def pair(before, after):
    records = [{"status": "ok", "device": "cpu", "settings": settings} for settings in (before, after)]
    return Pair("arm", 0, *records)


def choice(name, **options):
    return {"slot": "norm", "name": name, "options": options}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (choice("group", groups=8), choice("group", groups=4), "norm.groups 8, 4"),
        (choice("group", groups=8), choice("batch"), "norm.name group, batch"),
        (choice("import", options={"a": 1}), choice("import", options={}), "norm.options.a 1, None"),
        (choice("distill", of=choice("x", n=1)), choice("distill", of=choice("x", n=2)), "norm.of.n 1, 2"),
        (choice("k", path="/a/one"), choice("k", path="/b/two"), "norm.path /a/one, /b/two"),
        (choice("k", rate=0.0), choice("k", rate=None), "norm.rate 0.0, None"),
    ],
)
def test_another_choice_is_another_experiment(before, after, said):
    found = pair({"techniques": {"norm": [before]}}, {"techniques": {"norm": [after]}}).another_experiment
    assert found.startswith("other settings: techniques.")
    assert said in found


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (choice("group", groups=8), choice("group", groups=8, affine=True), "affine = True is new"),
        (choice("group", groups=8, affine=True), choice("group", groups=8), "affine is gone"),
        (choice("distill", of=choice("x")), choice("distill", of=choice("x", n=2)), "of.n = 2 is new"),
        (choice("k", path="/a/data"), choice("k", path="/b/data"), "path is another path"),
    ],
)
def test_what_the_code_gained_or_lost_is_told_and_compared(before, after, told):
    found = pair({"techniques": {"norm": [before]}}, {"techniques": {"norm": [after]}})
    assert found.another_experiment == ""
    (text,) = found.options_of_one_side()
    assert text.endswith(told)


def test_a_slot_that_is_empty_and_one_left_out_are_the_same_and_a_filled_one_is_not():
    assert pair({"techniques": {"norm": []}}, {"techniques": {}}).another_experiment == ""
    assert pair({"techniques": {"norm": [choice("group")]}}, {"techniques": {}}).another_experiment != ""


def test_other_devices_are_not_compared_and_another_gpu_of_them_is():
    def devices(one, other):
        return Pair("arm", 0, {"device": one, "status": "ok"}, {"device": other, "status": "ok"}).another_experiment

    assert devices("cpu", "cuda:0") == "other device (cpu, cuda)"
    assert devices("cuda:1", "cuda:0") == ""


def test_datasets_of_one_name_and_other_images_are_another_experiment():
    def found(one, other):
        before, after = ({"data": data, "status": "ok"} for data in (one, other))
        return Pair("arm", 0, before, after).another_experiment

    assert found("ab12", "cd34") == "other data: the datasets' fingerprints differ"
    assert found("ab12", "ab12") == found(None, "cd34") == ""  # older records have none


def test_other_test_images_under_the_same_name_are_another_experiment():
    after = Run(quality(0.5))
    for record in after.records:
        record["details"]["confusion"] = [[500, 0], [0, 400]]
    (found,) = result(Run(quality(0.9)), after).comparisons
    assert found.reason == "other data: 1000, 900 test images, or of other classes"


def test_trials_that_broke_are_regressions_and_mended_ones_improvements():
    before = Run({"baseline": {"accuracy": 0.9}, "arm": {"accuracy": 0.9}}).broken("arm", "failed", "was bad", 0)
    after = Run({"baseline": {"accuracy": 0.9}, "arm": {"accuracy": 0.9}}).broken("baseline", "oom", "too big", 1, 2)
    found = result(before, after)
    broke, mended = found.trials
    assert (broke.arm, broke.seeds, broke.after, broke.reason, broke.verdict) == (
        "baseline", (1, 2), "oom", "too big", "regressed",
    )  # fmt: skip
    assert (mended.arm, mended.seeds, mended.verdict) == ("arm", (0,), "improved")
    assert found.regressions == 1
    assert [len(c.evidence.pairs) for c in found.comparisons] == [3, 4]
    told = "From fewer seeds than planned: baseline 3 of 5 (accuracy); arm 4 of 5 (accuracy)."
    assert told in list(notes(found, ("a", "b")))
    whole = result(Run({"baseline": {"accuracy": 0.9}}), Run({"baseline": {"accuracy": 0.9}}))
    assert not any("fewer seeds" in note for note in notes(whole, ("a", "b")))


def test_a_trial_that_is_skipped_now_is_told_and_is_no_regression():
    after = Run(quality(0.9)).broken("baseline", "skipped", "needs onnx", 0, 1, 2, 3, 4)
    found = result(Run(quality(0.9)), after)
    assert [t.verdict for t in found.trials] == ["not compared"]
    assert [(c.verdict, c.reason) for c in found.comparisons] == [("not compared", "no seed is ok in both")]
    assert found.regressions == 0


def test_seeds_are_paired_and_those_of_one_side_left_out():
    (found,) = result(Run(quality(0.9), seeds=5), Run(quality(0.9), seeds=3)).comparisons
    assert [p.seed for p in found.evidence.pairs] == [0, 1, 2]
    assert found.evidence.before == found.evidence.after


# False alarms


def noisy_run(random, code):
    """Five arms with six noisy figures each, none of which depends on the code."""
    arms = {}
    for arm in ("baseline", "a", "b", "c", "d"):
        luck = random.normal(size=(6, 5))
        names = ("accuracy", "f1_macro", "nll", "ece", "top5")
        values = {name: (lambda s, x=x: 0.5 + 0.01 * x[s]) for name, x in zip(names, luck, strict=False)}
        arms[arm] = {**values, "latency_b1_ms": (lambda s, x=luck[5]: 1.0 + 0.01 * x[s])}
    return Run(arms, seeds=5, code=code)


def test_under_the_null_a_comparison_of_thirty_figures_cries_wolf_in_at_most_one_of_twenty():
    random = np.random.default_rng(0)
    rounds = 100
    zero = ["accuracy:0pp,f1_macro:0pp,nll:0%,ece:0pp,top5:0pp,latency:0%"]
    called = alone = 0
    for _ in range(rounds):
        found = result(noisy_run(random, "one"), noisy_run(random, "two"), zero).comparisons
        assert len(found) == 30
        called += any(c.verdict in {"regressed", "improved"} for c in found)
        alone += any(c.verdict != "no change shown" or "by itself" in c.reason for c in found)
    # 3 standard errors above 5 %; without the correction about 3 of 4 rounds would.
    assert called <= rounds * 0.05 + 3 * math.sqrt(rounds * 0.05 * 0.95)
    assert alone > rounds / 2


# The command


@pytest.fixture
def folders(tmp_path):
    def write(before, after):
        return str(before.write(tmp_path / "before")), str(after.write(tmp_path / "after"))

    return write


def test_the_exit_code_says_whether_there_is_a_regression(folders, capsys):
    before, after = folders(Run(quality(0.9)), Run(quality(0.8), code="two"))
    assert main(["compare", before, after]) == 3
    assert capsys.readouterr().out.startswith("1 regression.")
    assert main(["compare", after, before]) == 0
    assert capsys.readouterr().out.startswith("No regression (1 improved).")
    assert main(["compare", before, after, "--fail-on", "accuracy:20pp"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fail-on", "latency:5%"], "--fail-on: these results have no latency; they have accuracy"),
        (["--fail-on", "acc:5%"], "--fail-on: unknown metric 'acc'"),
        (["--format", "markdwn"], "--format: unknown format 'markdwn': did you mean 'markdown'?"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(folders, capsys, words, said):
    before, after = folders(Run(quality(0.9)), Run(quality(0.8)))
    assert main(["compare", before, after, *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"cnnbench: {said}")
    assert err.count("\n") == 1


def test_runs_without_a_common_arm_are_bad_usage(folders, capsys):
    before, after = folders(Run({"a": {"accuracy": 0.9}}), Run({"b": {"accuracy": 0.9}}))
    assert main(["compare", before, after]) == 2
    assert "no arm in common: before has a; after has b" in capsys.readouterr().err


def test_the_notes_say_what_decided_what_differs_and_what_is_left_out(folders, capsys):
    before = Run({**timed(1, 2), "gone": {"latency_b1_ms": 1.0}})
    after = Run({**timed(1, 2), "new": {"latency_b1_ms": 1.0}}, environment={"torch": "2.16.0"}, seeds=4)
    for record in after.records:
        record["details"]["noise"] = {"others_percent": 60.0, "steal_percent": 0.0, "cores": 2, "seconds": 10.0}
    assert main(["compare", *folders(before, after)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for said in (
        "Tolerances: latency 5 %.",
        "Other versions: torch 2.15.0 → 2.16.0.",
        "Arms only before: gone.",
        "Arms only after: new.",
        "Compared over the seeds that both have: 0, 1, 2, 3.",
        "Same code: ",
        "revision aaaaaaaaaaaa",
    ):
        assert said in text
    assert re.search(r"After: Noisy machine: other work took .* most 60 %", text)
    assert "Before: Noisy" not in text


def test_where_no_ratio_decides_a_warning_stands_and_the_headline_says_what_else_it_may_be(folders, capsys):
    before, after = folders(Run(timed(1, 2), seeds=3), Run(timed(1, 2), seeds=3, code=TWO, drift=1.08))
    for form in ("terminal", "markdown", "json"):
        assert main(["compare", before, after, "--format", form]) == 3
        out = " ".join(capsys.readouterr().out.split())
        assert "No ratio decides here, the figure by itself does: latency of baseline. All seeds" in out
        assert "machine's doing: every arm moved alike" in out
        assert form == "json" or "1 regression, or the machine's doing (1 no change shown)." in out
    drift = {"seeds": 3, "code": {"arm": "two"}, "drift": 1.08}
    before, after = Run(timed(1, 2), seeds=3), Run(timed(1, 2), **drift)
    assert not any("No ratio decides" in note for note in notes(result(before, after), ("a", "b")))


def test_without_an_interval_the_note_names_what_is_not_called(folders, capsys):
    arms = {"baseline": {"accuracy": 0.9, "f1_macro": 0.9, **timed(1, 2)["baseline"]}}
    slow = {"baseline": {"accuracy": 0.9, "f1_macro": 0.9, **timed(2, 2)["baseline"]}}
    assert main(["compare", *folders(Run(arms, seeds=1), Run(slow, seeds=1, code="two"))]) == 3
    text = " ".join(capsys.readouterr().out.split())
    assert "Without an interval nothing is called of accuracy, f1_macro: run three seeds or more." in text


def test_a_long_table_names_what_did_not_change_and_shows_the_rest(folders, capsys):
    def arms(slow):
        times = {arm: wobble(2, 0.01, n) for n, arm in enumerate("abcdefgh")}
        times["h"] = wobble(2 * slow, 0.01, 7)
        keys = ("latency_b1_ms", "accuracy", "params", "size_bytes")
        return {arm: dict.fromkeys(keys, 1.0) | {"latency_b1_ms": time} for arm, time in times.items()}

    how = {"reference": "a"}
    before, after = folders(Run(arms(1), **how), Run(arms(1.4), code={"h": "two"}, **how))
    assert main(["compare", before, after]) == 3
    out = capsys.readouterr().out
    assert out.startswith("1 regression (31 no change shown).")
    assert len(re.findall("latency b1 .* regressed$", out, re.MULTILINE)) == 1
    assert "No change shown in any metric of a, b, c, d, e, f, g." in out
    assert "No further change shown of h: accuracy, params, size." in out
    assert len(out.partition("Before: ")[0].splitlines()) < 15
    assert main(["compare", before, before]) == 0
    out = capsys.readouterr().out
    assert "No change shown in any metric of a, b, c, d, e, f, g, h." in out
    assert "before    " not in out, "no head without a body"


@pytest.mark.parametrize(
    ("mean", "low", "high", "text"),
    [
        (0.081, 0.069, 0.093, "+8.1 % (+6.9 to +9.3)"),
        (-0.05, -0.62, 1.40, "−5 % (−62 to +140)"),
        (0.051, -0.995, 220.0, "+5 % (−99.5 to +22000)"),
        (0.05, 0.0004, 0.11, "+5.0 % (+0.04 to +11.0)"),
        (0.005, -0.006, 0.30, "+0.5 % (−0.6 to +30.0)"),
        (0.2, 0.2, 0.2, "+20.0 %"),
        (1e-8, 1e-8, 1e-8, "+0.000001 %"),
        (1e-16, -1e-16, 1e-16, "0.0 % (0.0 to 0.0)"),
    ],
)
def test_a_difference_keeps_the_digits_of_the_interval_shorter_side(mean, low, high, text):
    assert _shown(Change(mean, low, high, relative=True), "ms", 1.0) == text


@given(st.tuples(*[st.floats(-0.999999, 1e4)] * 3).map(sorted), st.booleans())
def test_no_figure_of_a_difference_is_rounded_to_nothing(values, relative):
    low, mean, high = (0.0 if abs(value) < 1e-8 else value for value in values)
    text = _shown(Change(mean, low, high, relative), "ms", 1.0).replace("−", "-")
    shown = [float(word) for word in re.findall(r"[-+]?\d+\.?\d*", text)]
    for number, value in zip(shown, [mean, low, high], strict=False):
        assert np.sign(number) == np.sign(value)
        assert not relative or number > -100


def test_names_from_files_steer_neither_terminal_nor_markdown(folders, capsys):
    name = "evil\x1b[31m | arm"
    before, after = folders(Run({name: {"accuracy": 0.9}}, reference=""), Run({name: {"accuracy": 0.9}}, reference=""))
    for form in ("terminal", "markdown"):
        main(["compare", before, after, "--format", form])
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert form == "terminal" or r"evil�\[31m \| arm" in out


def test_markdown_shows_what_moved_and_folds_the_rest(folders, capsys):
    before, after = folders(Run(timed(1, 2)), Run(timed(1, 2.5), code={"arm": "two"}))
    assert main(["compare", before, after, "--format", "markdown"]) == 3
    out = capsys.readouterr().out
    sight, _, folded = out.partition("<details>")
    assert "**1 regression (1 no change shown).**" in sight
    assert re.search(r"\| arm +\| latency b1 .*\*\*regressed\*\*", sight)
    assert "baseline |" not in sight.replace("beside baseline", "")
    assert "| baseline" in folded


def test_json_holds_every_figure(folders, capsys, tmp_path):
    before, after = folders(Run(timed(1, 2)), Run(timed(1, 2.5), code={"arm": "two"}, drift=2.0))
    file = tmp_path / "out.json"
    assert main(["compare", before, after, "--format", "json", "--output", str(file)]) == 3
    data = json.loads(file.read_text("utf-8"))
    assert data["regressions"] == 1
    base, arm = data["comparisons"]
    assert base["reason"] == "same code"
    assert base["difference"]["mean"] == pytest.approx(1.0, abs=0.01)
    for one in (base, arm):
        assert one["after"] / one["before"] - 1 == pytest.approx(one["difference"]["mean"]), "a row agrees with itself"
    assert arm["decided_by"] == ["beside"]
    assert arm["beside"]["mean"] == pytest.approx(0.25, abs=0.01)
    assert arm["beside"]["low"] - 1e-9 <= arm["beside"]["mean"] <= arm["beside"]["high"] + 1e-9
    assert arm["tolerance"] == {"amount": 0.05, "relative": True}
    assert arm["seeds"] == [0, 1, 2, 3, 4]


# The page


PAGE = (Path(__file__).parents[2] / "docs" / "regressions.md").read_text("utf-8")


def test_the_pages_workflow_is_yaml_whose_commands_parse():
    yaml = pytest.importorskip("yaml")
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    steps = yaml.safe_load(text)["jobs"]["compare"]["steps"]
    assert all(("run" in step) != ("uses" in step) for step in steps)
    lines = [line for step in steps for line in step.get("run", "").splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if re.match(r"\S*\bcnnbench ", line)]
    assert [words[0] for words in commands] == ["run", "run", "compare"]
    given = [_parser().parse_args(words) for words in commands]
    assert (given[2].before, given[2].after) == (given[0].results, given[1].results)
    assert given[0].cache != given[1].cache, "else the second run would take over what the first measured"
    parse_tolerances(given[2].fail_on, METRICS)


def test_the_page_states_every_default():
    rows = re.findall(r"^\| (`.*?) \| (\S+(?: %)?)", PAGE, re.MULTILINE)
    stated = {name: text.rstrip(":") for names, text in rows for name in re.findall(r"`(\w+)`", names)}
    assert stated == {name: tolerance.text for name, tolerance in DEFAULTS.items()}
