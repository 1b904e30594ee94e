"""What tables conclude: which arms form a family, what decides, and how it is shown and noted."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from cnnbench.quantities import METRICS, quantities
from cnnbench.tables import make_report, make_table, render
from cnnbench.verdicts import kind_of

# A module beside the tests, which importlib mode does not find by its name.
_spec = importlib.util.spec_from_file_location("table_records", Path(__file__).with_name("table_records.py"))
table_records = importlib.util.module_from_spec(_spec)
sys.modules["table_records"] = table_records
_spec.loader.exec_module(table_records)

sample, timed, of = table_records.sample, table_records.timed, table_records.of
cells, data, noted = table_records.cells, table_records.data, table_records.noted

SEEDS = 8
NOISE = np.random.default_rng(3).normal(0, 1, (5, SEEDS))


def run(
    effects: dict[str, float],
    seeds: int = SEEDS,
    noise: float = 0.004,
    measure: dict[str, Any] | None = None,
    statistics: dict[str, Any] | None = None,
    planned: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Arms of ``sample`` whose accuracy lies this far above a baseline that follows the seeds' luck.

    Their latencies lie as far above the baseline's, as a share of it.
    """
    records = timed(of(sample(seeds), "baseline", *effects))
    for r in records:
        place = ["baseline", *effects].index(r["arm"])
        own = noise * NOISE[place % len(NOISE), r["seed"]] if place else 0.0
        r["status"], r["reason"] = "ok", None
        r["metrics"] = {
            "accuracy": 0.9 + 0.01 * math.sin(r["seed"]) + effects.get(r["arm"], 0.0) + own,
            "params": 1000.0 if effects.get(r["arm"], 0.0) >= 0 else 500.0,
            "latency_b1_ms": 2.0 * (1 + effects.get(r["arm"], 0.0) + own),
        }
        if place:
            r["metrics"]["latency_b1_ratio"] = r["metrics"]["latency_b1_ms"] / 2.0
        r["measure"] = {"primary": "accuracy", "metrics": ["accuracy"], "latency": {"batch_sizes": [1]}}
        r["measure"] |= measure or {}
        if statistics:
            r["statistics"] = statistics
        r["planned"] = {**r["planned"], **(planned or {})}
    return records


def series(records: list[dict[str, Any]], arm: str, key: str = "accuracy") -> np.ndarray:
    return np.array([r["metrics"].get(key, np.nan) for r in records if r["arm"] == arm])


def p_of(records: list[dict[str, Any]], arm: str, key: str = "accuracy") -> float:
    return float(scipy.stats.ttest_rel(series(records, arm, key), series(records, "baseline", key)).pvalue)


EFFECTS = {"silu": 0.02, "mixup": 0.006, "distill": -0.03, "placebo": 0.0}


class TestFamilies:
    def test_holm_over_the_arms_without_the_placebo(self) -> None:
        records = run(EFFECTS)
        arms = ["silu", "mixup", "distill"]
        expected = multipletests([p_of(records, arm) for arm in arms], method="holm")[1]
        found = data(records)
        adjusted = [float(found[arm, "accuracy"]["p_adjusted"]) for arm in arms]
        assert adjusted == pytest.approx(expected)
        # The placebo is a family of its own.
        alone = found["placebo", "accuracy"]
        assert float(alone["p_adjusted"]) == pytest.approx(p_of(records, "placebo")) == pytest.approx(float(alone["p"]))

    def test_the_suite_can_ask_for_benjamini_and_hochberg(self) -> None:
        records = run(EFFECTS, statistics={"correction": "benjamini-hochberg"})
        arms = ["silu", "mixup", "distill"]
        expected = multipletests([p_of(records, arm) for arm in arms], method="fdr_bh")[1]
        assert [float(data(records)[arm, "accuracy"]["p_adjusted"]) for arm in arms] == pytest.approx(expected)
        assert "Benjamini-Hochberg-adjusted (false discovery rate) over the 3 arms" in noted(records, "Verdicts (")

    def test_the_suite_can_ask_for_the_sign_flip_test(self) -> None:
        records = run(EFFECTS, statistics={"test": "sign-flip"})
        found = data(records)["silu", "accuracy"]
        assert float(found["p"]) == float(found["p_sign_flip"]) == 2 / 2**SEEDS
        assert "exact sign-flip test against the reference" in noted(records, "Verdicts (")

    def test_arms_against_another_arm_are_of_the_same_family(self) -> None:
        records = run(EFFECTS)
        for r in records:
            r["reference"] = {"baseline": None, "distill": "silu"}.get(r["arm"], "baseline")
        expected = scipy.stats.ttest_rel(series(records, "distill"), series(records, "silu")).pvalue
        found = data(records)
        assert float(found["distill", "accuracy"]["p"]) == pytest.approx(expected)
        raw = [float(found[arm, "accuracy"]["p"]) for arm in ("silu", "mixup", "distill")]
        adjusted = [float(found[arm, "accuracy"]["p_adjusted"]) for arm in ("silu", "mixup", "distill")]
        assert adjusted == pytest.approx(multipletests(raw, method="holm")[1])

    def test_the_interval_shown_is_the_one_asked_for(self) -> None:
        plain, asked = (data(run(EFFECTS, statistics={"interval": way}))["mixup", "accuracy"] for way in ("t", "bca"))
        assert plain["diff"] == asked["diff"]
        assert plain["diff_low"] != asked["diff_low"]
        assert "its 95 % BCa bootstrap interval" in noted(run(EFFECTS, statistics={"interval": "bca"}), "Δ:")


class TestKinds:
    """How each quantity is judged."""

    def test_every_metric_has_a_way(self) -> None:
        found = {name: kind_of(quantities([name], [1])[0]) for name in METRICS}
        apart = {"train_time", "energy_train", "co2_train", "prepare_time"}
        assert {name for name, kind in found.items() if kind == "apart"} == apart
        assert {name for name, kind in found.items() if kind == "energy"} == {"energy", "co2"}
        assert {name for name, kind in found.items() if kind == "timed"} == {"latency", "throughput"}
        assert {name for name, kind in found.items() if kind == "percentile"} == {"latency_p95", "latency_p99"}
        exact = {"params", "params_nonzero", "flops", "size", "size_deflated", "size_onnx", "size_served"}
        assert {name for name, kind in found.items() if kind == "exact"} == exact
        assert found["params_trainable"] == kind_of(quantities(["kappa"], [1])[0]) == "undirected"
        assert found["memory"] == found["accuracy"] == found["agreement"] == "plain"

    def test_what_has_no_noise_is_decided_by_one_seed(self) -> None:
        records = run(EFFECTS, seeds=1, measure={"metrics": ["accuracy", "params"]})
        found = data(records)
        assert found["distill", "params"]["verdict"] == "better"
        assert found["silu", "params"]["verdict"] == "equivalent"
        assert cells(records, "params [k]") == {"baseline": "1.000", "silu": "1.000", "mixup": "1.000"} | {
            "distill": "0.500 ▲",
            "placebo": "1.000",
        }
        assert found["distill", "accuracy"]["verdict"] == "unresolved"
        assert cells(records, "verdict")["distill"] == "unresolved (n=1)"

    def test_times_by_the_logarithms_of_paired_ratios(self) -> None:
        records = run(EFFECTS, measure={"metrics": ["accuracy", "latency"]})
        found = data(records)
        for arm in ("silu", "mixup", "distill"):
            logs = np.log(series(records, arm, "latency_b1_ratio"))
            assert float(found[arm, "latency_b1_ms"]["p"]) == pytest.approx(scipy.stats.ttest_1samp(logs, 0).pvalue)
            assert found[arm, "latency_b1_ratio"]["verdict"] == found[arm, "latency_b1_ms"]["verdict"]
        ratios = cells(records, "ratio b1 [×]")
        assert [ratios[arm][-1] for arm in ("silu", "mixup", "distill")] == ["▼", "≈", "▲"]

    def test_throughput_is_the_other_side_of_latency(self) -> None:
        records = run(EFFECTS, measure={"metrics": ["accuracy", "latency", "throughput"]})
        for r in records:
            r["metrics"]["throughput_b1"] = 1000 / r["metrics"]["latency_b1_ms"]
        found = data(records)
        for arm in ("silu", "mixup", "distill"):
            latency, throughput = found[arm, "latency_b1_ms"], found[arm, "throughput_b1"]
            assert (latency["verdict"], latency["p"]) == (throughput["verdict"], throughput["p"])
        assert cells(records, "throughput b1 [images/s]")["distill"].replace(" *", "").endswith("▲")

    @pytest.mark.parametrize(
        ("margin", "precision", "expected"),
        [(None, 0.02, 0.02), (0.02, 0.005, 0.01), (0.02, 0.03, 0.03)],
    )
    def test_their_margin_is_never_below_what_sampling_tells_apart(
        self, margin: float | None, precision: float, expected: float
    ) -> None:
        measure = {"metrics": ["latency"], "latency": {"batch_sizes": [1], "precision": precision}}
        table = make_table(run(EFFECTS, measure=measure | ({"margin": {"latency": margin}} if margin else {})))
        assert table.margins["latency_b1_ms"] == pytest.approx(expected)  # the baseline takes 2 ms
        assert f"within {100 * expected:g} % (latency b1)" in noted(
            run(EFFECTS, measure=measure | ({"margin": {"latency": margin}} if margin else {})), "≈:"
        )

    def test_two_seeds_decide_nothing_of_times(self) -> None:
        records = run({"silu": 0.5, "mixup": -0.5}, seeds=2, noise=1e-6, measure={"metrics": ["accuracy", "latency"]})
        assert float(data(records)["silu", "latency_b1_ms"]["p"]) < 0.001
        assert {data(records)[arm, "latency_b1_ms"]["verdict"] for arm in ("silu", "mixup")} == {"unresolved"}
        assert "Latency b1: fewer than 3 seeds decide nothing." in make_table(records).notes
        more = run(EFFECTS, measure={"metrics": ["accuracy", "latency"]})
        assert not noted(more, "Latency b1: fewer")
        for r in more:
            if r["arm"] == "mixup" and r["seed"] > 1:
                del r["metrics"]["latency_b1_ratio"]
        assert noted(more, "Latency b1: fewer") == "Latency b1: fewer than 3 seeds decide nothing (mixup)."

    @pytest.mark.parametrize(
        ("methods", "verdict"),
        [(("measured", "measured"), "worse"), (("measured", "estimated"), ""), (("estimated", "estimated"), "")],
    )
    def test_energy_where_both_sides_were_measured(self, methods: tuple[str, str], verdict: str) -> None:
        records = run({"silu": 0.3}, measure={"metrics": ["accuracy", "energy"]})
        for r in records:
            r["metrics"]["energy_inference_mj"] = r["metrics"]["latency_b1_ms"]
            r["methods"] = {"energy_inference_mj": methods[r["arm"] == "silu"]}
        assert data(records)["silu", "energy_inference_mj"]["verdict"] == verdict
        note = noted(records, "No verdict on energy: only what was measured on both sides is judged")
        assert bool(note) == (verdict == "")

    def test_trainings_are_not_judged_and_it_is_said(self) -> None:
        records = run({"silu": 0.3}, measure={"metrics": ["accuracy", "train_time", "prepare_time", "latency_p95"]})
        for r in records:
            ms = r["metrics"]["latency_b1_ms"]
            r["metrics"] |= {"train_seconds": ms, "prepare_seconds": ms, "latency_b1_p95_ms": ms}
        found = data(records)
        keys = ("train_seconds", "prepare_seconds", "latency_b1_p95_ms")
        assert {found["silu", key]["verdict"] for key in keys} == {""}
        assert noted(records, "No verdict on training, preparing: trainings and preparations are not interleaved")
        assert noted(records, "No verdict on p95 b1: pairing does not free percentiles")


class TestShown:
    def test_words_for_the_primary_metric_and_signs_beside_differences(self) -> None:
        records = run(EFFECTS | {"mixup": 0.0}, noise=0.0015, measure={"margin": {"accuracy": 0.005}})
        assert cells(records, "verdict") == {
            "baseline": "",
            "silu": "better",
            "mixup": "equivalent",
            "distill": "worse",
            "placebo": "",
        }
        signs = {arm: cell[-1:] for arm, cell in cells(records, "Δ accuracy [pp]").items()}
        assert (signs["silu"], signs["mixup"], signs["distill"]) == ("▲", "≈", "▼")
        assert noted(records, "≈: shown to be within 0.5 pp (accuracy) of the reference")

    def test_what_is_open_says_from_how_many_seeds(self) -> None:
        records = run({"silu": 0.004, "mixup": 0.0}, seeds=3)
        assert set(cells(records, "verdict").values()) == {"", "unresolved (n=3)"}
        assert not any(sign in render(records, "csv") for sign in "▲▼≈")

    def test_a_direction_of_the_metric_is_kept(self) -> None:
        records = run(EFFECTS, measure={"primary": "nll", "metrics": ["nll"]})
        for r in records:
            r["metrics"] = {"nll": r["metrics"]["accuracy"]}
        found = cells(records, "verdict")
        assert (found["silu"], found["distill"]) == ("worse", "better")

    def test_without_anything_judged_there_is_no_such_column(self) -> None:
        records = run({"silu": 0.3}, measure={"primary": "train_time", "metrics": ["train_time"]})
        for r in records:
            r["metrics"] = {"train_seconds": r["metrics"]["latency_b1_ms"]}
        assert "verdict" not in table_records.heads(records)
        assert not noted(records, "Verdicts (")

    def test_best_values_and_what_may_be_as_good(self) -> None:
        records = run({"silu": 0.0202, "mixup": 0.02, "distill": -0.03, "placebo": 0.05})
        rows = {row.arm: row.measured["accuracy"].strong for row in make_table(records).rows}
        assert rows == {"baseline": False, "silu": True, "mixup": True, "distill": False, "placebo": False}
        text = render(records, "markdown")
        assert text.count("**") == 4
        terminal = [line for line in render(records, "terminal", 120).splitlines() if " * " in line]
        assert [line.split()[0] for line in terminal if "±" in line and not line.startswith(" ")] == ["silu", "mixup"]
        assert noted(records, "Marked (* in a terminal, else bold)")

    def test_an_arm_keeps_its_mark_where_only_intervals_part(self) -> None:
        """Its own interval misses that of the best mean, and no test says that it is worse."""
        records = run({"silu": 0.0, "mixup": -0.02, "distill": -0.5, "int8": -0.02}, seeds=3, noise=0.0005)
        for r in records:
            if r["arm"] in {"baseline", "silu"}:
                ahead = 0.035 + 0.01 * (r["seed"] - 1) if r["arm"] == "silu" else 0.0
                r["metrics"]["accuracy"] = 0.9 + ahead + 1e-5 * r["seed"] ** 2
        rows = {row.arm: row.measured["accuracy"].strong for row in make_table(records).rows}
        assert rows["baseline"]
        assert rows["silu"]
        assert not rows["distill"]

    def test_an_arm_of_wild_seeds_is_no_tie(self) -> None:
        records = run({"silu": 0.02, "mixup": 0.0, "distill": 0.0})
        for r in records:
            if r["arm"] == "distill":
                r["metrics"]["accuracy"] = 0.4 if r["seed"] in {0, 3, 4} else 0.88
        rows = {row.arm: row.measured["accuracy"].strong for row in make_table(records).rows}
        assert rows == {"baseline": False, "silu": True, "mixup": False, "distill": False}

    def test_the_fastest_by_ratios_also_through_another_reference(self) -> None:
        records = run({"silu": 2.0, "mixup": -0.2, "distill": 0.0}, measure={"metrics": ["accuracy", "latency"]})
        for r in records:
            r["reference"] = {"baseline": None, "distill": "silu"}.get(r["arm"], "baseline")
            if (
                r["arm"] == "distill"
            ):  # half of silu's, so half as long again as the baseline's, whatever its clock says
                r["metrics"] |= {"latency_b1_ratio": 0.5 + 0.001 * r["seed"], "latency_b1_ms": 0.1}
        rows = {row.arm: row.measured["latency_b1_ms"].strong for row in make_table(records).rows}
        assert rows == {"baseline": False, "silu": False, "mixup": True, "distill": False}

    @pytest.mark.parametrize("name", ["csv", "json"])
    def test_data_hold_every_figure_of_a_judgement(self, name: str) -> None:
        records = run(EFFECTS, measure={"margin": {"accuracy": 0.005}})
        if name == "csv":
            found = {key: float(value) for key, value in data(records)["silu", "accuracy"].items() if key in FIGURES}
        else:
            arms = json.loads(render(records, "json"))["tables"][0]["arms"]
            values = next(arm for arm in arms if arm["arm"] == "silu")["quantities"]["accuracy"]
            found = {key: value for key, value in values.items() if key in FIGURES}
        assert found.keys() == FIGURES
        difference = series(records, "silu") - series(records, "baseline")
        assert found["improvement"] == np.mean(difference > 0)
        assert found["effect_size"] == pytest.approx(difference.mean() / difference.std(ddof=1), rel=0.2)  # less bias
        assert found["p_sign_flip"] == 2 / 2**SEEDS


FIGURES = {"p", "p_adjusted", "p_sign_flip", "p_equivalence", "effect_size"} | {
    "improvement",
    "improvement_low",
    "improvement_high",
}


class TestNotes:
    def test_what_decides(self) -> None:
        assert noted(run(EFFECTS), "Verdicts (") == (
            "Verdicts (▲ better, ▼ worse, ≈ equivalent): paired t test against the reference, Holm-adjusted over the 3 "
            "arms of each metric, at 5 %, the placebo apart. Unresolved, or no sign: the seeds do not decide, which is "
            "not equality."
        )
        assert "paired t test against the reference, one arm, so nothing to adjust, at 5 %." in noted(
            run({"silu": 0.1}), "Verdicts ("
        )

    @pytest.mark.parametrize(("arms", "needed"), [(1, 6), (3, 7), (4, 8)])
    def test_from_how_many_seeds_the_sign_flip_test_could(self, arms: int, needed: int) -> None:
        effects = dict.fromkeys(["silu", "mixup", "distill", "int8"][:arms], 0.01)
        found = noted(run(effects, seeds=needed - 1), "The sign-flip test, which assumes least")
        assert found.endswith(f"from {needed} seeds on.")
        assert not noted(run(effects, seeds=needed), "The sign-flip test")
        asked = {"test": "sign-flip"}
        assert noted(run(effects, seeds=needed - 1, statistics=asked), "Nothing can be decided here")
        assert not noted(run(effects, seeds=needed, statistics=asked), "Nothing can be decided here")

    @pytest.mark.parametrize(("most", "looks"), [(6, [4, 6]), (9, [4, 6, 9]), (10, [5, 7, 10])])
    def test_what_looks_cost_the_sign_flip_test_is_counted_in(self, most: int, looks: list[int]) -> None:
        """One arm and six seeds, or four arms and nine, would be enough without looks."""
        arms = ["silu"] if most == 6 else ["silu", "mixup", "distill", "int8"]
        records = run(dict.fromkeys(arms, 0.5), seeds=SEEDS, statistics={"test": "sign-flip"}, planned={"looks": looks})
        found = noted(records, "Nothing can be decided here")
        assert bool(found) == (most == 6)
        if found:
            assert found.endswith("of one arm and the looks at them the sign-flip test reaches 5 % from 7 seeds on.")

    def test_the_noise_of_the_run_in_figures(self) -> None:
        records = run(EFFECTS, measure={"metrics": ["accuracy", "latency"]})
        shown = cells(records, "Δ accuracy [pp]")["placebo"]
        ratio = cells(records, "ratio b1 [×]")["placebo"]
        assert noted(records, "placebo: the baseline again with other random numbers. ").endswith(
            f"Noise of this run: Δ accuracy {shown} pp; ratio b1 {ratio}."
        )

    def test_a_placebo_that_differs_is_warned_of(self) -> None:
        records = run(EFFECTS | {"placebo": 0.02}, measure={"metrics": ["accuracy", "params", "memory"]})
        for r in records:
            r["metrics"]["memory_inference_mib"] = 30.0
        warning = noted(records, "Warning: placebo differs in accuracy (p < 0.001) by its own test")
        assert ", of 2 metrics judged. Chance alone" in warning
        assert not noted(run(EFFECTS), "Warning")
        assert cells(records, "Δ accuracy [pp]")["placebo"][-1].isdigit()  # a placebo makes no claim
        assert cells(records, "verdict")["placebo"] == ""

    def test_an_arm_that_lost_seeds(self) -> None:
        records = run(EFFECTS)
        for r in records:
            if r["arm"] == "silu" and r["seed"] > 2:
                r.update(status="failed", reason="?", metrics={})
        assert noted(records, "Verdicts over the seeds that are there") == (
            "Verdicts over the seeds that are there, which may be the lucky ones: silu (3 of 8)."
        )

    def test_looks_are_named(self) -> None:
        records = run(EFFECTS, planned={"looks": [4, 8]})
        assert "sequential paired t test, looking at 4, 8 seeds, against" in noted(records, "Verdicts (")
        assert "repeated confidence interval at the arm's last look" in noted(records, "Δ:")
        assert "after raising most_seeds" in noted(records, "The 5 % hold if the looks were fixed")
        assert noted(run(EFFECTS), "The 5 % hold") == ""
        # The first look has decided, and what came later plays no part.
        assert data(records)["distill", "accuracy"]["diff_n"] == "4"
        first = series(records, "distill")[:4] - series(records, "baseline")[:4]
        assert float(data(records)["distill", "accuracy"]["diff"]) == pytest.approx(first.mean())


class TestIntervals:
    """What stands behind a ± is the interval that its note names."""

    def times(self, looks: bool = True, interval: str = "t", primary: str = "latency") -> list[dict[str, Any]]:
        measure = {"primary": primary, "metrics": ["accuracy", "latency"]}
        planned = {"looks": [4, 8]} if looks else None
        return run(EFFECTS, measure=measure, statistics={"interval": interval}, planned=planned)

    def test_a_timed_primary_has_its_sign_at_the_ratio_alone(self) -> None:
        records = self.times(looks=False)
        differences, ratios = cells(records, "Δ latency b1 [ms]"), cells(records, "ratio b1 [×]")
        for arm, sign in (("silu", "▼"), ("mixup", "≈"), ("distill", "▲")):
            assert ratios[arm].endswith(f" {sign}")
            assert differences[arm][-1].isdigit()
        assert cells(run(EFFECTS), "Δ accuracy [pp]")["silu"].endswith("▲")

    def test_ratios_under_looks_are_those_of_the_last_look(self) -> None:
        records = self.times()
        found = {row.arm: row.measured["latency_b1_ratio"] for row in make_table(records).rows}["distill"]
        logs = np.log(series(records, "distill", "latency_b1_ratio"))[:4]
        assert found.judgement.n == found.value.n == 4
        assert found.value.mean == pytest.approx(np.exp(logs.mean()))
        assert found.value.low == pytest.approx(np.exp(found.judgement.difference.low))
        naive = scipy.stats.t.ppf(0.975, 3) * scipy.stats.sem(logs)
        assert found.value.high > np.exp(logs.mean() + naive)  # wider, as it allows for looks

    def test_ratios_have_the_interval_asked_for(self) -> None:
        plain, asked = (
            {row.arm: row.measured["latency_b1_ratio"].value for row in make_table(self.times(False, way)).rows}["silu"]
            for way in ("t", "bca")
        )
        logs = np.log(series(self.times(), "silu", "latency_b1_ratio"))
        half = scipy.stats.t.ppf(0.975, 7) * scipy.stats.sem(logs)
        assert plain.high == pytest.approx(np.exp(logs.mean() + half))
        assert asked.mean == pytest.approx(plain.mean)
        assert asked.high != plain.high

    def test_notes_name_the_interval_of_ratios(self) -> None:
        assert "± its 95 % t interval (of logarithms)" in noted(self.times(looks=False), "ratio:")
        assert "± its 95 % BCa bootstrap interval (of" in noted(self.times(False, "bca"), "ratio:")
        assert "± its 95 % repeated confidence interval at the arm's last look" in noted(self.times(), "ratio:")

    def test_differences_that_nothing_is_judged_by_say_so(self) -> None:
        assert noted(self.times(looks=False), "In Δ") == ""
        assert noted(self.times(), "In Δ") == (
            "In Δ latency b1, by which nothing is judged, ± is the 95 % paired t interval of all seeds, which does not "
            "allow for looks."
        )
        assert noted(self.times(False, "bca"), "In Δ").endswith("± is the 95 % paired t interval.")
        assert noted(self.times(primary="accuracy"), "In Δ") == ""

    def test_energy_that_is_judged_has_the_judged_interval(self) -> None:
        records = self.times(primary="energy")
        for r in records:
            r["metrics"]["energy_inference_mj"] = r["metrics"]["latency_b1_ms"]
            r["methods"] = {"energy_inference_mj": "measured"}
        found = {row.arm: row.measured["energy_inference_mj"] for row in make_table(records).rows}["distill"]
        assert found.difference == found.judgement.difference
        assert found.difference.n == 4
        assert noted(records, "In Δ") == ""


class TestDatasets:
    def records(self) -> list[dict[str, Any]]:
        both: list[dict[str, Any]] = []
        for label, effect in (("digits", 0.02), ("fashion", -0.02)):
            records = run({"silu": effect}, planned={"datasets": ["digits", "fashion"]})
            both += [{**r, "dataset": label} for r in records]
        return both

    def test_each_has_a_table_and_a_sheet_of_its_own(self) -> None:
        report = make_report(self.records())
        assert [table.dataset for table in report.tables] == ["digits", "fashion"]
        found = [table.rows[1].measured["accuracy"].judgement for table in report.tables]
        assert [judgement.verdict for judgement in found if judgement] == ["better", "worse"]
        sheets = [sheet for sheet in report.sheets if sheet.key.startswith("table")]
        assert [(sheet.key, sheet.title) for sheet in sheets] == [
            ("table", "quickstart on digits"),
            ("table-2", "quickstart on fashion"),
        ]
        assert [sheet.key for sheet in report.sheets][-1] == "aggregate"
        assert len({sheet.key for sheet in report.sheets}) == len(report.sheets)

    def test_what_all_share_is_noted_once(self) -> None:
        report = make_report(self.records())
        assert report.tables[0].notes == report.tables[1].notes
        assert report.sheets[0].notes == report.tables[0].notes
        records = self.records()
        records[-1].update(status="failed", reason="no luck", metrics={})
        later = next(sheet for sheet in make_report(records).sheets if sheet.key == "table-2").notes
        assert "failed: silu (seed 7): no luck" in later
        assert later[-1] == "Signs, tests and conditions: as under quickstart on digits."
        assert not any(note.startswith("±") for note in later)

    def test_data_name_them(self) -> None:
        tables = json.loads(render(self.records(), "json"))["tables"]
        assert [table["dataset"] for table in tables] == ["digits", "fashion"]
        lines = render(self.records(), "csv").splitlines()
        assert [line.split(",")[0] for line in lines] == ["dataset", "digits", "digits", "fashion", "fashion"]

    def test_one_dataset_is_not_spoken_of(self) -> None:
        report = make_report([{**r, "dataset": "digits"} for r in run({"silu": 0.1})])
        assert (report.tables[0].dataset, report.sheets[0].title) == ("", "quickstart")
