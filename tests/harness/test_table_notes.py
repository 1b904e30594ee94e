"""Intervals, digits and footnotes of tables, where they depend on how something was measured."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnbench.tables import make_table, render

# A module beside the tests, which importlib mode does not find by its name.
_spec = importlib.util.spec_from_file_location("table_records", Path(__file__).with_name("table_records.py"))
table_records = importlib.util.module_from_spec(_spec)
sys.modules["table_records"] = table_records
_spec.loader.exec_module(table_records)

sample, timed, of = table_records.sample, table_records.timed, table_records.of
cells, data, noted = table_records.cells, table_records.data, table_records.noted


class TestIntervals:
    """What ± is, and what its absence means."""

    MEASURING = "± from one or two seeds"

    def test_agreement_is_said_of_the_columns_where_it_is_seen(self) -> None:
        text = noted(timed(of(sample(), "baseline", "silu")), "±: ")
        expected = "; in params, multiply-adds, size, where there is none, all seeds agree."
        assert text == "±: half the 95 % t interval of the mean over seeds" + expected
        varied = timed(of(sample(), "baseline", "silu"))
        for r in varied:
            r["measure"] = {**r["measure"], "metrics": ["accuracy", "latency"]}
        assert noted(varied, "±: ") == "±: half the 95 % t interval of the mean over seeds."

    def test_one_value_alone_agrees_with_nothing(self) -> None:
        records = timed(of(sample(), "baseline", "silu"))
        for r in records:
            r["measure"] = {**r["measure"], "metrics": ["accuracy", "f1_macro"]}
            if r["arm"] == "silu" and r["seed"]:
                r.update(status="failed", reason="?", metrics={})
        assert cells(records, "accuracy [%]")["silu"].endswith("(n=1)")
        assert noted(records, "±: ") == "±: half the 95 % t interval of the mean over seeds."

    def test_one_seed_shows_those_of_its_session(self) -> None:
        records = timed(of(sample(1), "baseline", "silu"))
        for r in records:
            r["measure"] = {**r["measure"], "metrics": ["accuracy", "latency", "throughput", "energy"]}
            r["metrics"] |= {"latency_b1_ms": 4.0, "throughput_b1": 250.0, "energy_inference_mj": 0.8}
            r["details"]["latency"]["1"]["interval_ms"] = [3.9, 4.2]
            r["details"]["energy"]["range_mj"] = [0.7, 0.85]
        found = data(records)
        ends = lambda key: [float(found["silu", key][name]) for name in ("mean", "low", "high", "n")]  # noqa: E731
        assert ends("latency_b1_ms") == [4.0, 3.9, 4.2, 1]
        assert ends("throughput_b1") == pytest.approx([250.0, 1000 / 4.2, 1000 / 3.9, 1])
        assert ends("energy_inference_mj") == [0.8, 0.7, 0.85, 1]
        assert found["silu", "accuracy"]["low"] == ""
        assert cells(records, "latency b1 [ms]")["silu"] == "4.00 ± 0.20"  # the longer side
        assert cells(records, "energy [mJ/image]")["silu"] == "0.80 ± 0.10 est."
        labels = "latency b1, latency b32, throughput b1, energy"
        assert noted(records, self.MEASURING).startswith(f"{self.MEASURING}, in {labels}: the interval of the samples")
        assert noted(records, self.MEASURING).endswith("which holds the noise of measuring alone.")
        assert noted(records, "One seed: there are no intervals over seeds")
        assert not noted(records, "±: ")

    def test_two_seeds_show_the_span_of_both(self) -> None:
        records = timed(of(sample(2), "baseline", "silu"))
        values = [r["metrics"]["latency_b32_ms"] for r in records if r["arm"] == "silu"]
        row = data(records)["silu", "latency_b32_ms"]
        expected = [np.mean(values), 0.99 * min(values), 1.02 * max(values), 2]
        assert [float(row[name]) for name in ("mean", "low", "high", "n")] == pytest.approx(expected)
        assert "the span of both of two" in noted(records, self.MEASURING)
        assert not noted(timed(of(sample(3), "baseline", "silu")), self.MEASURING)

    def test_arms_are_named_where_others_have_more_seeds(self) -> None:
        assert noted(timed(sample()), self.MEASURING).startswith(f"{self.MEASURING} (int8), in latency b1,")

    def test_co2_has_that_of_its_energy(self) -> None:
        records = timed(of(sample(1), "baseline"))
        for r in records:
            r["measure"] = {**r["measure"], "metrics": ["co2"]}
            r["metrics"] |= {"energy_inference_mj": 0.8, "co2_inference_ug": 0.2}
            r["details"]["energy"]["range_mj"] = [0.7, 0.85]
        row = data(records)["baseline", "co2_inference_ug"]
        assert [float(row[name]) for name in ("low", "high")] == pytest.approx([0.175, 0.2125])

    @pytest.mark.parametrize(("stopped", "why"), [("time", ", as time was up (see max_seconds)"), ("count", "")])
    def test_a_session_of_too_few_rounds_is_told(self, stopped: str, why: str) -> None:
        records = timed(of(sample(2), "baseline", "silu", "mixup"))
        short = next(r for r in records if r["arm"] == "mixup" and r["seed"] == 1)
        short["details"]["latency"]["1"] |= {"ratio": None, "interval_ms": None, "stopped": stopped}
        row = data(records)["mixup", "latency_b1_ms"]
        assert (row["n"], row["low"]) == ("2", "")  # and no t interval either, 12.7 standard errors to each side
        assert "±" not in cells(records, "latency b1 [ms]")["mixup"]
        assert cells(records, "ratio b1 [×]")["mixup"] == "–"
        assert noted(records, "Ratio –") == f"Ratio –: fewer than 8 rounds give it no interval{why}: mixup."
        assert noted(records, "Latency without ±") == (
            f"Latency without ±: too few rounds for an interval{why}: mixup."
        )

    def test_with_intervals_nothing_is_told_of_rounds(self) -> None:
        for records in (timed(sample()), timed(sample(1)), sample(1)):
            assert not noted(records, "Ratio –")
            assert not noted(records, "Latency without ±")


class TestDigits:
    """Arms far faster than the slowest show digits of their own."""

    def records(self, arms: dict[str, float], seeds: int = 1) -> list[dict[str, Any]]:
        records = of(sample(seeds), *arms)
        for r in records:
            r["measure"] = {"primary": "latency", "metrics": ["latency"], "latency": {"batch_sizes": [1]}}
            r["metrics"] = {"latency_b1_ms": arms[r["arm"]], "latency_b1_ratio": arms[r["arm"]] / 1.3}
            r["reference"] = None if r["arm"] == "baseline" else "baseline"
        return records

    def test_times_ratios_and_differences(self) -> None:
        arms = {"baseline": 1.3, "silu": 559.31, "prune 80 %": 0.3142, "distill": 0.02718}
        assert cells(self.records(arms), "latency b1 [ms]") == {
            "baseline": "1.3",
            "silu": "559",
            "prune 80 %": "0.31",
            "distill": "0.027",
        }
        assert cells(self.records({"baseline": 1.3, "silu": 559.0, "mixup": 1.325}), "Δ latency b1 [ms]") == {
            "baseline": "",
            "silu": "+558",
            "mixup": "+0.025",
        }
        ratios = cells(self.records({**arms, "mixup": 1.3}, 3), "ratio b1 [×]")
        found = [ratios[arm] for arm in ("silu", "prune 80 %", "distill", "mixup")]
        assert found == ["430", "0.24", "0.021", "1.00"]

    def test_a_value_with_interval_among_slow_ones_keeps_its_own(self) -> None:
        records = timed(of(sample(1), "baseline", "silu"))
        for r in records:
            ms = 559.0 if r["arm"] == "silu" else 0.31
            r["metrics"]["latency_b1_ms"] = ms
            r["details"]["latency"]["1"]["interval_ms"] = [0.98 * ms, 1.02 * ms]
        assert cells(records, "latency b1 [ms]") == {"baseline": "0.3100 ± 0.0062", "silu": "559 ± 11"}

    def test_without_smaller_units_powers_of_ten_are_shown_and_zero_is_zero(self) -> None:
        records = of(sample(1), "baseline", "silu", "mixup")
        for r in records:
            r["measure"] = {"primary": "accuracy", "metrics": ["max_difference"]}
            r["metrics"]["max_difference"] = {"baseline": 0.0, "silu": 0.211, "mixup": 4.77e-7}[r["arm"]]
        assert cells(records, "largest difference") == {"baseline": "0", "silu": "0.211", "mixup": "4.8e−7"}
        rows = render(records, "terminal", 120).splitlines()[5:8]
        assert [row.split()[-1] for row in rows] == ["0", "0.211", "4.8e−7"]
        assert len({row.rindex(f" {digit}") for row, digit in zip(rows, "004", strict=True)}) == 1  # points align

    def test_small_differences_in_quality_get_none(self) -> None:
        records = of(sample(1), "baseline", "silu", "mixup")
        for r in records:
            r["metrics"]["accuracy"] = {"baseline": 0.9, "silu": 0.5, "mixup": 0.900312}[r["arm"]]
        assert cells(records, "Δ accuracy [pp]") == {"baseline": "", "silu": "−40.0", "mixup": "0.0"}


class TestThreads:
    def records(self, threads: int, cpus: list[int] | None, cores: str = "2") -> list[dict[str, Any]]:
        records = timed(of(sample(1), "baseline", "silu"))
        for r in records:
            r["environment"] = {**r["environment"], "cores_usable": cores}
            for one in r["details"]["latency"].values():
                one |= {"threads": threads, "cpus": cpus}
        return records

    @pytest.mark.parametrize(
        ("threads", "cpus", "expected"),
        [
            (2, [0, 1], "2 threads on CPUs 0, 1"),
            (1, [3], "1 thread on CPU 3"),
            (8, list(range(2, 10)), "8 threads on CPUs 2 to 9"),
            (2, None, "2 threads"),
        ],
    )
    def test_they_stand_with_the_conditions(self, threads: int, cpus: list[int] | None, expected: str) -> None:
        assert noted(self.records(threads, cpus, "16"), "1 seed").endswith(f"; device cpu; latency with {expected}.")

    def test_options_of_the_dataset_are_named_and_places_are_not(self) -> None:
        records = self.records(2, None)
        numbers = {"classes": 4, "train_images": 1_250_000, "noise": 0.05, "split": "balanced"}
        for r in records:
            silent = {"path": "/data/x", "download": False, "size": None, "mean": [0.5]}
            r["settings"] = {
                "dataset": {"name": "shapes", "options": {**numbers, **silent}},
                "data": {"train_size": 200},
            }
        said = "dataset shapes (classes 4, train_images 1250000, noise 0.05, split balanced, train_size 200); device"
        assert said in noted(records, "1 seed")

    def test_all_ways_are_told(self) -> None:
        records = self.records(2, [0, 1])
        records[1]["details"]["latency"]["1"] |= {"threads": 1, "cpus": [0]}
        expected = "latency with 2 threads on CPUs 0, 1, 1 thread on CPU 0 and 2 threads on CPUs 0, 1."
        assert noted(records, "1 seed").endswith(expected)

    def test_more_of_them_than_cores(self) -> None:
        expected = "Latency was taken with 4 threads on 1 usable core: they wait for each other."
        assert noted(self.records(4, None, "1"), "Latency was taken with") == expected
        assert not noted(self.records(4, None, "4"), "Latency was taken with")

    def test_nothing_is_said_where_no_latency_is_shown(self) -> None:
        records = self.records(4, None, "1")
        for r in records:
            r["measure"] = {**r["measure"], "metrics": ["accuracy", "energy"]}
        assert not any("thread" in text for text in make_table(records).notes)


class TestTrainings:
    """What other trainings beside it do to a training's time and energy."""

    def records(self, metric: str, workers: list[int | None], way: str = "measured") -> list[dict[str, Any]]:
        records = of(sample(len(workers)), "baseline", "silu")
        for r in records:
            r["measure"] = {"primary": "accuracy", "metrics": ["accuracy", metric]}
            r["metrics"] |= {"train_seconds": 3.0, "energy_train_j": 50.0 + r["seed"], "co2_train_mg": 6.0}
            r["methods"] = {"energy_train_j": way, "co2_train_mg": way}
            if workers[r["seed"]] is not None:
                r["workers"] = workers[r["seed"]]
        return records

    @pytest.mark.parametrize(
        ("metric", "label"),
        [("train_time", "Training"), ("energy_train", "Training energy"), ("co2_train", "Training CO2")],
    )
    def test_trainings_side_by_side_are_told(self, metric: str, label: str) -> None:
        expected = (
            f"{label}: taken with up to 4 trainings side by side, which slow each other down; "
            "--workers 1 --fresh takes them alone."
        )
        assert expected in make_table(self.records(metric, [1, 4, None])).notes
        assert not any("side by side" in text for text in make_table(self.records(metric, [1, 1, None])).notes)

    def test_nothing_is_said_without_such_a_column(self) -> None:
        assert not any("side by side" in text for text in make_table(self.records("memory_train", [4, 4])).notes)

    def test_a_shared_counter_is_marked(self) -> None:
        records = self.records("energy_train", [4, 4], "shared")
        assert cells(records, "training energy [J]")["silu"].endswith(" shared")
        assert noted(records, "shared: a counter of the whole machine")
        records[0]["methods"] = {"energy_train_j": "measured"}
        assert cells(records, "training energy [J]")["baseline"].endswith("± 6.4 shared")
        assert not noted(self.records("energy_train", [1, 1]), "shared:")
