"""What tables say of latency: ratios, arms that compute less and are not faster, noise, how it was sampled."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from cnnbench.tables import make_table, render

# A module beside the tests, which importlib mode does not find by its name.
_spec = importlib.util.spec_from_file_location("table_records", Path(__file__).with_name("table_records.py"))
table_records = importlib.util.module_from_spec(_spec)
sys.modules["table_records"] = table_records
_spec.loader.exec_module(table_records)

QUIET, sample, timed, of = table_records.QUIET, table_records.sample, table_records.timed, table_records.of
cells, data, noted = table_records.cells, table_records.data, table_records.noted
heads = table_records.heads

OTHERS = "Noisy machine: other work took more than 5 % of a core"
WITHHELD = "Noisy machine: the hypervisor withheld more than 1 % of a core"


def notes_with(noise: list[dict[str, Any]], metrics: tuple[str, ...] = ("latency",)) -> list[str]:
    """The notes of a run whose seeds were measured in one session each, with these things noted."""
    records = timed(sample(len(noise)))
    for r in records:
        r["measure"] = {**r["measure"], "metrics": list(metrics)}
        r["details"]["noise"] = {**QUIET, **noise[r["seed"]]}
    return list(make_table(records).notes)


def sampled(ends: list[tuple[str, int]], metrics: list[str], precision: float = 0.02) -> list[dict[str, Any]]:
    """A run of one seed with a sampling an arm and batch size: first these (why it stopped, samples), then good ones.

    Trials that are not ok have been sampled badly, which must not count.
    """
    left = iter(ends)
    records = sample(1)
    for record in records:
        record["measure"] = {
            "primary": metrics[0],
            "metrics": metrics,
            "latency": {"batch_sizes": [1, 32], "precision": precision},
        }
        latency = {}
        for size in ("1", "32"):
            stopped, count = next(left, ("precision", 400))
            latency[size] = {"stopped": stopped, "samples_ms": [0.4] * count}
        record["details"] = {"latency": latency}
    failed = {**records[-1], "seed": 1, "status": "failed", "metrics": {}}
    failed["details"] = {"latency": {"1": {"stopped": "time", "samples_ms": [0.4]}}}
    return [*records, failed]


class TestRatios:
    def test_over_three_seeds_the_interval_is_that_of_the_logarithms(self) -> None:
        records = timed(sample())
        logs = [np.log(r["metrics"]["latency_b1_ratio"]) for r in records if r["arm"] == "silu"]
        interval = scipy.stats.ttest_1samp(logs, 0).confidence_interval()
        row = data(records)["silu", "latency_b1_ratio"]
        expected = [scipy.stats.gmean(np.exp(logs)), np.exp(interval.low), np.exp(interval.high), 5]
        assert [float(row[name]) for name in ("mean", "low", "high", "n")] == pytest.approx(expected)
        assert (row["diff"], row["method"]) == ("", "measured")

    @pytest.mark.parametrize("seeds", [1, 2])
    def test_with_fewer_the_sessions_own_intervals_are_spanned(self, seeds: int) -> None:
        records = timed(sample(seeds))
        ratios = [r["metrics"]["latency_b32_ratio"] for r in records if r["arm"] == "silu"]
        row = data(records)["silu", "latency_b32_ratio"]
        expected = [scipy.stats.gmean(ratios), 0.99 * min(ratios), 1.015 * max(ratios), seeds]
        assert [float(row[name]) for name in ("mean", "low", "high", "n")] == pytest.approx(expected)
        note = "with fewer than 3 seeds ± is that of measuring alone, not of training"
        assert note in render(records, "markdown")
        assert note not in render(timed(of(sample(), "baseline", "silu")), "markdown")

    def test_the_longer_side_of_the_interval_is_shown(self) -> None:
        records = timed(of(sample(1), "baseline", "silu"))
        for r in records:
            r["metrics"]["latency_b1_ratio"] = 1.2
            r["details"]["latency"]["1"]["ratio"] = [1.2, 1.19, 1.25]
        assert cells(records, "ratio b1 [×]")["silu"] == "1.200 ± 0.050"

    def test_without_any_interval_one_seed_s_ratio_is_not_shown(self) -> None:
        records = timed(of(sample(1), "baseline", "distill"))
        for r in records:
            r["details"]["latency"]["1"]["ratio"] = None
        assert cells(records, "ratio b1 [×]")["distill"] == "–"

    def test_each_stands_beside_its_latency_and_nowhere_without_one(self) -> None:
        beside = ["latency b1 [ms]", "ratio b1 [×]", "latency b32 [ms]", "ratio b32 [×]", "energy [mJ/image]"]
        assert heads(timed(sample()))[-5:] == beside
        assert not any("ratio" in head for head in heads(sample()))
        assert not any(note.startswith("ratio:") for note in make_table(sample()).notes)

    def test_one_with_nothing_to_compare_shows_none(self) -> None:
        records = timed(sample())
        for r in records:
            if r["arm"] == "mixup":
                del r["metrics"]["latency_b1_ratio"]
        found = cells(records, "ratio b1 [×]")
        assert (found["baseline (baseline)" if "baseline (baseline)" in found else "baseline"], found["mixup"]) == (
            "",
            "–",
        )


class TestMultiplyAdds:
    """Arms that compute less and are not faster."""

    def records(self, flops: float, low: float, high: float, metrics: tuple[str, ...] = ("latency",)) -> Any:
        records = timed(of(sample(1), "baseline", "mixup"))
        for r in records:
            r["measure"] = {**r["measure"], "metrics": list(metrics)}
            if r["arm"] == "mixup":
                r["metrics"] |= {"flops": flops * r["metrics"]["flops"], "latency_b1_ratio": (low + high) / 2}
                r["details"]["latency"]["1"]["ratio"] = [(low + high) / 2, low, high]
                r["metrics"]["latency_b32_ratio"] = 0.5
                r["details"]["latency"]["32"]["ratio"] = [0.5, 0.49, 0.51]
        return records

    @pytest.mark.parametrize(
        ("flops", "low", "high", "flagged"),
        [(0.5, 0.98, 1.06, True), (0.5, 0.9, 0.999, False), (0.96, 0.98, 1.06, False), (0.94, 0.9, 1.0, True)],
    )
    def test_they_are_flagged(self, flops: float, low: float, high: float, flagged: bool) -> None:
        records = self.records(flops, low, high)
        assert ("‡" in cells(records, "ratio b1 [×]")["mixup"]) == flagged
        assert "‡" not in cells(records, "ratio b32 [×]")["mixup"]
        share, ratio = f"{flops:.2f}", f"{(low + high) / 2:.2f}"
        note = f"‡: fewer multiply-adds, not measurably faster: mixup (×{share} multiply-adds, ×{ratio} latency b1)."
        assert (note in make_table(records).notes) == flagged

    def test_it_is_said_where_neither_is_shown(self) -> None:
        notes = make_table(self.records(0.5, 0.98, 1.06, ("accuracy",))).notes
        assert "Fewer multiply-adds, not measurably faster: mixup (×0.50 multiply-adds, ×1.02 latency b1)." in notes

    def test_they_are_compared_with_their_own_reference(self) -> None:
        records = timed(sample(1), {"distill": "group norm", "mixup": "distill"})
        for r in records:
            if r["arm"] == "group norm":
                r["metrics"]["flops"] = 310_464.0  # as many as distill, which is faster all the same
        assert not any("ewer multiply-adds" in note for note in make_table(records).notes if "distill (" in note)

    def test_nothing_is_said_of_what_was_not_counted(self) -> None:
        records = self.records(0.5, 0.98, 1.06)
        for r in records:
            r["metrics"]["flops"] = None
        assert not any("ewer multiply-adds" in note for note in make_table(records).notes)


class TestNoise:
    def test_a_quiet_machine_is_not_spoken_of(self) -> None:
        assert not any("Noisy" in n or "hrottled" in n or "clock" in n for n in notes_with([{}, {}, {}]))

    @pytest.mark.parametrize(
        ("noise", "expected"),
        [
            (
                [{"others_percent": 34.2}, {"others_percent": 2.0}, {"others_percent": 71.0}],
                f"{OTHERS} in 2 of 3 latency sessions (median 34 %, most 71 %).",
            ),
            (
                [{"steal_percent": 3.4}, {}],
                f"{WITHHELD} in 1 of 2 latency sessions (most 3.4 %).",
            ),
            ([{"throttle_events": 2}], "Throttled: the CPU was too hot in 1 of 1 latency sessions."),
            (
                [{"gpu_throttles": ["power cap"]}, {"gpu_throttles": ["power cap", "power brake"]}, {}],
                "Throttled: the GPU was held back by power cap, power brake in 2 of 3 latency sessions.",
            ),
            (
                [{"cpu_mhz": [3400.0, 2900.0]}, {"cpu_mhz": [3400.0, 2600.0]}, {"cpu_mhz": [3400.0, 3100.0]}],
                "The CPU's clock fell in 2 of 3 latency sessions, at most from 3400 to 2600 MHz.",
            ),
            (
                [{"gpu_mhz": [1980, 1500]}],
                "The GPU's clock fell in 1 of 1 latency sessions, at most from 1980 to 1500 MHz.",
            ),
        ],
    )
    def test_what_disturbed_is_said(self, noise: list[dict[str, Any]], expected: str) -> None:
        notes = notes_with(noise)
        assert expected in notes
        assert sum("Noisy" in n or "hrottled" in n or "clock" in n for n in notes) == 1
        assert expected not in notes_with(noise, ("accuracy",))  # no column that it would concern

    def test_energy_has_noise_of_its_own(self) -> None:
        records = timed(sample(2))
        for r in records:
            r["measure"] = {**r["measure"], "metrics": ["energy"]}
            loud = {**QUIET, "others_percent": 34.2, "steal_percent": 1.04}
            r["details"] |= {"noise": loud, "noise_energy": loud if r["seed"] else QUIET}
        assert [text for text in make_table(records).notes if "Noisy" in text] == [
            f"{OTHERS} in 1 of 2 energy sessions (median 18 %, most 34 %).",
            f"{WITHHELD} in 1 of 2 energy sessions (most 1.0 %).",
        ]
        for r in records:
            r["measure"] = {**r["measure"], "metrics": ["co2", "latency"]}
        sessions = [text.partition(" (")[0][-26:] for text in make_table(records).notes if text.startswith(OTHERS)]
        assert sessions == ["in 1 of 1 latency sessions", " in 1 of 2 energy sessions"]

    def test_rounding_of_a_short_session_is_no_noise(self) -> None:
        assert not any("Noisy" in n for n in notes_with([{"others_percent": 40.0, "seconds": 0.2}]))

    def test_what_a_system_does_not_tell_is_no_noise(self) -> None:
        silent = dict.fromkeys([*QUIET, "gpu_mhz", "gpu_throttles"])
        assert not any("Noisy" in n or "hrottled" in n or "clock" in n for n in notes_with([silent]))


class TestSampling:
    @pytest.mark.parametrize(
        ("stopped", "why"),
        [
            ({"time": 2}, "time was up in 2 (see max_seconds)"),
            ({"count": 1}, "the limit on samples was reached in 1"),
            ({"time": 3, "count": 2}, "time was up in 3 (see max_seconds), the limit on samples was reached in 2"),
        ],
    )
    def test_latency_that_is_less_precise_than_asked(self, stopped: dict[str, int], why: str) -> None:
        ends = [(end, 3) for end, count in stopped.items() for _ in range(count)]
        notes = make_table(sampled(ends, ["accuracy", "latency"], precision=0.05)).notes
        where = f"{len(ends)} of 18 samplings (fewest samples: 3)"
        assert f"Latency: the median or its ratio is not known within 5 % in {where}: {why}." in notes
        assert not any("fewer than" in note for note in notes)

    def test_latency_notes_stand_under_latency_alone(self) -> None:
        ends = [("time", 3)]
        assert "ratio is not known within 2 %" in render(sampled(ends, ["throughput"]), "markdown")
        assert "is not known" not in render(sampled(ends, ["accuracy", "memory"]), "markdown")
        assert "is not known" not in render(sampled([], ["latency"]), "markdown")

    def test_calls_that_never_became_steady(self) -> None:
        records = sampled([], ["latency"])
        records[0]["details"]["latency"]["1"]["steady"] = False
        records[1]["details"]["latency"]["1"]["steady"] = True
        records[-1]["details"]["latency"]["1"]["steady"] = False  # of a trial that failed
        assert noted(records, "Latency: calls were not steady").endswith("in 1 of 18 samplings (see max_seconds).")
        assert not noted(sampled([], ["latency"]), "Latency: calls")

    def test_percentiles_far_out_from_few_samples(self) -> None:
        ends = [("precision", 99), ("precision", 30), ("precision", 100)]
        note = "from fewer than 100 samples in 2 of 18 samplings (fewest samples: 30)."
        text = render(sampled(ends, ["latency", "latency_p95", "latency_p99"]), "markdown")
        assert f"- p95/p99 {note}" in text.splitlines()
        assert f"- p99 {note}" in render(sampled(ends, ["latency_p99"]), "markdown").splitlines()
        assert note not in render(sampled(ends, ["latency"]), "markdown")
        assert "fewer than" not in render(sampled([], ["latency_p95"]), "markdown")
