"""Tables of made-up but realistic records.

The files under tests/golden are what people see. After a change that is meant, write them anew and read the diff:

    CNNBENCH_UPDATE_GOLDEN=1 pytest tests/harness/test_tables.py
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from cnnbench.errors import UsageError
from cnnbench.tables import make_table, render

# A module beside the tests, which importlib mode does not find by its name.
_spec = importlib.util.spec_from_file_location("table_records", Path(__file__).with_name("table_records.py"))
table_records = importlib.util.module_from_spec(_spec)
sys.modules["table_records"] = table_records
_spec.loader.exec_module(table_records)

ARMS, QUIET = table_records.ARMS, table_records.QUIET
sample, timed, of = table_records.sample, table_records.timed, table_records.of
squeezed, lines = table_records.squeezed, table_records.lines
cells, data, noted = table_records.cells, table_records.data, table_records.noted
heads, blocks = table_records.heads, table_records.blocks

GOLDEN = Path(__file__).parents[1] / "golden"
TEXTS = ("terminal", "markdown", "csv", "json")
"""The formats that are this file's; those of papers and pages have files of their own."""
SOURCE = Path("results/quickstart/records.jsonl")


def renamed(records: list[dict[str, Any]], old: str, new: str) -> list[dict[str, Any]]:
    names = [new if name == old else name for name in records[0]["planned"]["arms"]]
    return [
        {**r, "arm": new if r["arm"] == old else r["arm"], "planned": {**r["planned"], "arms": names}} for r in records
    ]


class TestGolden:
    @pytest.mark.parametrize(
        ("file", "name", "width"),
        [
            ("table-80.txt", "terminal", 80),
            ("table-120.txt", "terminal", 120),
            ("table-200.txt", "terminal", 200),
            ("table.md", "markdown", None),
            ("table.csv", "csv", None),
            ("table.json", "json", None),
        ],
    )
    def test_as_people_last_read_it(self, file: str, name: str, width: int | None) -> None:
        text = render(timed(sample(), {"prune 80 %": "silu"}, {**QUIET, "others_percent": 34.0}), name, width, SOURCE)
        text += "\n"
        path = GOLDEN / file
        if os.environ.get("CNNBENCH_UPDATE_GOLDEN"):
            path.write_text(text, encoding="utf-8", newline="")
        expected = path.read_bytes().decode()
        if name in {"csv", "json"}:  # last bits of the numbers depend on the processor
            number = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
            assert number.sub("#", text) == number.sub("#", expected)
            found = [float(word) for word in number.findall(text)]
            assert found == pytest.approx([float(word) for word in number.findall(expected)], rel=1e-9, abs=1e-12)
        else:
            assert text == expected

    @pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 150, 200])
    def test_no_line_is_wider_than_the_terminal(self, width: int) -> None:
        text = render(timed(sample()), "terminal", width, SOURCE)
        assert max(map(cell_len, text.splitlines())) <= width
        for arm in ARMS:
            assert lines(text, arm)  # in every block


class TestNumbers:
    def test_intervals_are_those_of_scipy(self) -> None:
        records = sample()
        found = {(row["arm"], row["quantity"]): row for row in csv.DictReader(io.StringIO(render(records, "csv")))}
        ok = {(r["arm"], r["seed"]): r["metrics"]["f1_macro"] for r in records if r["status"] == "ok"}
        arm = [ok["group norm", seed] for seed in (0, 1, 2, 4)]
        baseline = [ok["baseline", seed] for seed in (0, 1, 2, 4)]
        row = found["group norm", "f1_macro"]
        mean = scipy.stats.ttest_1samp(arm, 0).confidence_interval()
        paired = scipy.stats.ttest_rel(arm, baseline).confidence_interval()
        assert [float(row[c]) for c in ("mean", "low", "high")] == pytest.approx([np.mean(arm), mean.low, mean.high])
        assert [float(row[c]) for c in ("diff_low", "diff_high")] == pytest.approx([paired.low, paired.high])
        assert (row["n"], row["diff_n"], row["ok"], row["planned"]) == ("4", "4", "4", "5")
        assert found["int8", "size_bytes"]["method"] == "nominal"
        assert found["baseline", "accuracy"]["diff"] == ""

    def test_json_is_strict_and_agrees_with_csv(self) -> None:
        records = sample()
        data = json.loads(render(records, "json"), parse_constant=pytest.fail)
        flat = [
            (arm["arm"], key, values["mean"], values["diff"])
            for arm in data["tables"][0]["arms"]
            for key, values in arm["quantities"].items()
        ]
        rows = csv.DictReader(io.StringIO(render(records, "csv")))
        number = lambda text: float(text) if text else None  # noqa: E731
        assert flat == [(r["arm"], r["quantity"], number(r["mean"]), number(r["diff"])) for r in rows]
        assert [arm["statuses"] for arm in data["tables"][0]["arms"] if arm["arm"] == "int8"] == [
            {"skipped": 3, "ok": 2}
        ]

    def test_what_seeds_do_not_change_has_no_interval(self) -> None:
        found = [cells(sample(), head)["baseline"] for head in ("params [k]", "multiply-adds [M]", "size [KiB]")]
        assert found == ["78.04", "4.812", "309.4"]

    def test_every_estimate_is_marked(self) -> None:
        found = cells(sample(), "energy [mJ/image]")
        assert list(found) == list(ARMS)
        assert all(cell.endswith(" est.") for cell in found.values())

    def test_what_an_ok_trial_could_not_measure_is_explained(self) -> None:
        text = render(sample(), "markdown")
        assert cells(sample(), "multiply-adds [M]")["int8"] == "–"
        assert "- int8: multiply-adds: GraphModule runs operators that can't be counted" in text

    def test_unknown_method_is_said(self) -> None:
        records = of(sample(), "baseline")
        records = [{**r, "methods": {"energy_inference_mj": "unknown"}} for r in records]
        assert cells(records, "energy [mJ/image]")["baseline"].endswith(" unknown")

    def test_units_follow_the_size_of_the_column(self) -> None:
        records = [
            {**r, "metrics": {**r["metrics"], "params": 25_557_032, "flops": 4.089e9, "size_bytes": 102.5e6}}
            for r in of(sample(), "baseline", "silu")
        ]
        found = [cells(records, head)["silu"] for head in ("params [M]", "multiply-adds [G]", "size [MiB]")]
        assert found == ["25.56", "4.089", "97.75"]

    def test_difference_over_fewer_seeds_than_the_value_says_so(self) -> None:
        records = of(sample(), "baseline", "silu")
        for r in records[2:5]:
            r.update(status="failed", metrics={}, reason="no luck")
        differences = ("Δ accuracy [pp]", "Δ F1 macro [pp]")
        assert all("(n=2)" in cells(records, head)["silu"] for head in differences)
        for r in records[1:2]:
            r.update(status="failed", metrics={}, reason="no luck")
        lone = [head for head in heads(records) if "(n=1)" in cells(records, head)["baseline"]]
        # Params, multiply-adds and size do not hang on that one seed.
        hang = ["accuracy [%]", "F1 macro [%]", "latency b1 [ms]", "latency b32 [ms]", "energy [mJ/image]"]
        assert lone == hang
        assert [head for head in heads(records) if "(n=1)" in cells(records, head)["silu"]] == ["verdict", *differences]


class TestReferences:
    def test_differences_are_from_the_arms_own_reference(self) -> None:
        records = timed(sample(), {"distill": "group norm"})
        ok = {(r["arm"], r["seed"]): r["metrics"]["accuracy"] for r in records if r["status"] == "ok"}
        differences = [ok["distill", seed] - ok["group norm", seed] for seed in (0, 1, 2, 4)]
        found = data(records)
        assert float(found["distill", "accuracy"]["diff"]) == pytest.approx(np.mean(differences))
        assert found["distill", "accuracy"]["diff_n"] == "4"
        assert found["silu", "accuracy"] == data(timed(sample()))["silu", "accuracy"]

    def test_all_formats_name_them(self) -> None:
        records = timed(sample(), {"distill": "group norm", "int8": "group norm", "mixup": "silu"})
        found = {arm["arm"]: arm["reference"] for arm in json.loads(render(records, "json"))["tables"][0]["arms"]}
        assert (found["baseline"], found["distill"], found["silu"]) == (None, "group norm", "baseline")
        assert {row["reference"] for row in data(records).values()} == {"", "group norm", "silu", "baseline"}
        notes = make_table(records).notes
        expected = "mixup with silu; int8, distill with group norm; all others with baseline."
        assert f"Compared, in Δ and ratio: {expected}" in notes
        assert any(note.startswith("Δ: difference from an arm's reference in the same seeds") for note in notes)

    def test_records_of_before_are_compared_with_the_baseline(self) -> None:
        assert data(sample())["silu", "accuracy"]["reference"] == "baseline"
        assert not any(note.startswith("Compared") for note in make_table(sample()).notes)

    def test_a_reference_without_an_ok_trial(self) -> None:
        records = timed(sample(), {"distill": "silu"})
        records = [
            {**r, "status": "failed", "reason": "?", "metrics": {}} if r["arm"] == "silu" else r for r in records
        ]
        assert cells(records, "Δ accuracy [pp]")["distill"] == "–"
        assert "No trial of silu is ok: there are no differences for distill." in make_table(records).notes

    def test_a_reference_that_did_not_run(self) -> None:
        records = of(timed(sample(), {"distill": "silu"}), "baseline", "distill")
        assert cells(records, "Δ accuracy [pp]")["distill"] == "–"
        assert "silu is not in this run: there are no differences for distill." in make_table(records).notes

    def test_a_run_without_baseline_still_compares_what_it_can(self) -> None:
        records = of(timed(sample(), {"distill": "silu"}), "silu", "distill")
        assert cells(records, "Δ accuracy [pp]")["distill"].startswith("−")


class TestMethods:
    """No format shows an estimate as if it were measured."""

    @staticmethod
    def run(methods: list[str | None], primary: str, key: str, metric: str) -> list[dict[str, Any]]:
        """A run whose arms got a quantity in these ways, the baseline first; None says nothing."""
        records = of(sample(2), *list(ARMS)[: len(methods)])
        ways = dict(zip(ARMS, methods, strict=False))
        for r in records:
            r["measure"] = {"primary": primary, "metrics": ["accuracy", metric], "latency": {"batch_sizes": [1]}}
            r["status"] = "ok"
            r["metrics"] = {"accuracy": 0.9, key: 1.0 + r["seed"]}
            r["methods"] = {} if ways[r["arm"]] is None else {key: ways[r["arm"]]}
        return records

    @given(
        methods=st.lists(st.sampled_from(["measured", "estimated", "unknown", None]), min_size=1, max_size=5),
        of_energy=st.sampled_from(
            [
                ("energy_inference_mj", "energy"),
                ("energy_train_j", "energy_train"),
                ("co2_inference_ug", "co2"),
                ("co2_train_mg", "co2_train"),
            ]
        ),
        primary=st.booleans(),
    )
    # Five tables an example: to shrink a failing one would take minutes, and it is small already.
    @settings(max_examples=25, deadline=None, phases=(Phase.explicit, Phase.generate))
    def test_every_format_marks_them(
        self, methods: list[str | None], of_energy: tuple[str, str], primary: bool
    ) -> None:
        key, metric = of_energy
        records = self.run(methods, metric if primary else "accuracy", key, metric)
        arms = dict(zip(ARMS, methods, strict=False))
        label = next(q.label for q in make_table(records).quantities if q.key == key)
        marks = {"measured": "", "estimated": "est.", "unknown": "unknown", None: "unknown"}

        def mixed(way: str | None) -> str:  # with the baseline's
            both = {way or "unknown", methods[0] or "unknown"}
            return "estimated" if "estimated" in both else "unknown" if "unknown" in both else "measured"

        # Data: the method stands in the same line, and beside the difference.
        exported = json.loads(render(records, "json"))
        for row, arm in zip(csv.DictReader(io.StringIO(render(records, "csv"))), self.flat(exported), strict=True):
            if row["quantity"] != key:
                continue
            way = arms[row["arm"]]
            assert row["method"] == arm["method"] == (way or "unknown")
            if row["diff"]:
                assert mixed(way) in row["diff_method"].split(", ")
                assert arm["diff_method"] == row["diff_method"]
        # Tables: in the cell itself, the difference's too.
        text = render(records, "terminal", 500)
        assert ("est.: estimated, not measured: an assumed power" in text) == ("estimated" in methods)
        columns = [head for head in heads(records) if label in head]
        assert len(columns) == 1 + (primary and len(methods) > 0)
        for column in columns:
            for name, cell in cells(records, column).items():
                way = arms[name]
                if "Δ" in column and name != "baseline":
                    assert (cell.count("est.") == 1) == (mixed(way) == "estimated")
                    assert mixed(way) == "measured" or "est." in cell or "unknown" in cell
                elif "Δ" not in column:
                    assert cell.endswith(marks[way])
                    assert ("est." in cell) == (way == "estimated")
        plain = [line for line in text.splitlines() if line.startswith(tuple(arms))]
        assert sum(line.count("est.") for line in plain) >= sum(way == "estimated" for way in methods)

    @staticmethod
    def flat(exported: dict[str, Any]) -> list[dict[str, Any]]:
        return [values for arm in exported["tables"][0]["arms"] for values in arm["quantities"].values()]

    def test_one_estimated_seed_among_measured_ones_marks_the_mean(self) -> None:
        records = self.run(["measured", "measured"], "energy", "energy_inference_mj", "energy")
        records[-1]["methods"] = {"energy_inference_mj": "estimated"}
        assert "est." in cells(records, "energy [mJ/image]")["group norm"]
        assert "est." in cells(records, "Δ energy [mJ/image]")["group norm"]
        assert data(records)["group norm", "energy_inference_mj"]["method"] == "estimated, measured"

    def test_co2_names_its_intensity_and_source(self) -> None:
        records = self.run(["estimated"], "accuracy", "co2_inference_ug", "co2")
        for r in records:
            r["details"] = {"energy": {"intensity": {"g_per_kwh": 475.0, "source": "world average of 2018, IEA"}}}
        note = "CO2: energy × 475 g/kWh (world average of 2018, IEA); as good as the energy that it is worked out from."
        assert note in make_table(records).notes
        for r in records:
            r["measure"] = {**r["measure"], "metrics": ["accuracy"]}
        assert note not in make_table(records).notes


class TestMemory:
    def test_its_columns(self) -> None:
        records = of(sample(), "baseline", "silu")
        for i, r in enumerate(records):
            r["measure"] = {"primary": "accuracy", "metrics": ["memory", "memory_weights", "memory_activations"]}
            r["metrics"] |= {
                "memory_inference_mib": 31.5 + i / 100,
                "memory_weights_mib": 0.305,
                "memory_activations_mib": 2_100.0 + i,
            }
        assert heads(records)[-3:] == ["memory [MiB]", "weights [MiB]", "activations [GiB]"]
        assert cells(records, "memory [MiB]")["silu"] == "31.570 ± 0.020"

    @pytest.mark.parametrize("name", TEXTS)
    def test_out_of_memory_is_a_status_with_its_reason(self, name: str) -> None:
        records = sample()
        reason = "memory: CUDA out of memory at batch 32, 79.1 GiB reached"
        for r in records:
            if r["arm"] == "silu":
                r.update(status="oom", reason=reason, metrics={})
        text = render(records, name, 200)
        if name in {"terminal", "markdown"}:
            assert f"oom: silu: {reason}" in text
            assert cells(records, "ok")["silu"] == "0/5"
        elif name == "json":
            statuses = {arm["arm"]: arm["statuses"] for arm in json.loads(text)["tables"][0]["arms"]}
            assert statuses["silu"] == {"oom": 5}
        else:
            assert data(records)["silu", "accuracy"]["ok"] == "0"


class TestCasesAtTheEdge:
    @pytest.mark.parametrize("name", TEXTS)
    def test_everything_failed(self, name: str) -> None:
        records = [{**r, "status": "failed", "reason": "no luck", "metrics": {}} for r in sample()]
        text = render(records, name, 80)
        assert "0/5" in text or '"ok": 0' in text or ",0,5," in text
        if name in {"terminal", "markdown"}:
            assert "No trial of baseline is ok: there are no differences." in text
            assert "no luck" in text

    def test_baseline_failed(self) -> None:
        records = sample()
        for r in records[:5]:
            r.update(status="crashed", reason="killed", metrics={})
        text = squeezed(render(records, "markdown"))
        assert "| silu | 5/5 | 97.55 ± 0.41 | – |" in text
        assert "- crashed: baseline: killed" in text

    def test_one_seed(self) -> None:
        text = squeezed(render(sample(1), "markdown"))
        table, _, notes = text.partition("\n\n- ")
        assert "±" not in table
        assert "(n=1)" not in table.replace("unresolved (n=1)", "")
        assert "One seed: there are no intervals" in notes
        assert re.search(r"\| silu \| 1/1 \| unresolved \(n=1\) \| \d\d\.\d \| [+−]0\.\d+ \|", table)

    def test_trials_still_to_come(self) -> None:
        records = [r for r in sample() if r["seed"] < 3 and r["arm"] != "mixup"]
        text = squeezed(render(records, "markdown"))
        assert "| mixup | 0/5 | – | – |" in text
        assert "- pending: baseline (seeds 3, 4); group norm (seeds 3, 4)" in text
        assert "; mixup; " in lines(text, "- pending")[0]

    def test_a_baseline_alone_is_compared_with_nothing(self) -> None:
        text = render(of(sample(), "baseline"), "markdown")
        assert "Δ:" not in text

    def test_placebo_is_explained(self) -> None:
        assert "placebo: the baseline again with other random numbers" in render(sample(), "markdown")

    @pytest.mark.parametrize(
        "name", ["a|b", "*bold* _it_ `code`", "<script>", "[x](y)", "two\nlines", "$x$ \\", "#1 ~a~"]
    )
    def test_markdown_shows_names_as_they_are(self, name: str) -> None:
        text = render(renamed(sample(), "silu", name), "markdown")
        row = text.splitlines()[6 + 2]
        cells = re.split(r"(?<!\\)(?:\\\\)*\|", row)
        assert len(cells) == len(text.splitlines()[4].split("|"))
        assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cells[1]).strip() == name.replace("\n", " ")
        assert not re.search(r"(?<!\\)[*_`<>\[\]$#~]", cells[1])

    @pytest.mark.parametrize(
        "name",
        [
            *("正規化なし", "naïve – ½", "12 px", "+3.5", "–", "tab\there", "\x1b[31mred", "e" * 70, "wörter " * 12),
            *("مرحبا بالعالم", "👩‍🔬 lab", "a&b #1 50% \\_{x}^~ <i>|"),
        ],
    )
    def test_terminal_stays_aligned_with_any_name(self, name: str) -> None:
        text = render(renamed(sample(), "silu", name), "terminal", 120)
        assert "\x1b" not in text
        assert max(map(cell_len, text.splitlines())) <= 120
        # The ok column ends in one place for every arm.
        ends = {
            cell_len(line[: match.end()]) for line in text.splitlines() if (match := re.search(r" \d/\d(?= )", line))
        }
        assert len(ends) == 1

    def test_json_keeps_names_exactly_and_csv_all_but_controls(self) -> None:
        name = 'a,"b"\n|c\r\x1b'
        records = renamed(sample(), "silu", name)
        text = render(records, "csv")
        on_one_line = 'a,"b" |c \ufffd'
        assert on_one_line in {row["arm"] for row in csv.DictReader(io.StringIO(text, newline=""))}
        assert name in {arm["arm"] for arm in json.loads(render(records, "json"))["tables"][0]["arms"]}

    @pytest.mark.parametrize("name", TEXTS)
    def test_hundreds_of_arms(self, name: str) -> None:
        one = of(sample(2), "baseline", "silu")
        arms = ["baseline", *(f"arm {i}" for i in range(300))]
        planned = {"arms": arms, "seeds": [0, 1]}
        records = [{**r, "planned": planned} for r in one[:2]]
        records += [
            {**r, "arm": arm, "planned": planned, "status": "failed", "reason": f"no luck {i % 50}"}
            for i, arm in enumerate(arms[1:])
            for r in one[2:]
        ]
        text = render(records, name, 80)
        assert "arm 299" in text
        if name == "markdown":
            assert len(text.splitlines()) < 2 * 301 + 40  # two tables, and reasons together

    def test_no_arm_named_like_its_role_is_labelled_twice(self) -> None:
        text = squeezed(render(renamed(sample(), "baseline", "plain net"), "markdown"))
        assert "| plain net (baseline) |" in text
        assert "Δ: difference from plain net in the same seeds" in text

    def test_metric_of_an_absent_plugin(self) -> None:
        records = [
            {
                **r,
                "measure": {**r["measure"], "metrics": ["accuracy", "kappa"]},
                "metrics": {"accuracy": 0.5, "kappa": 0.4},
            }
            for r in of(sample(), "baseline", "silu")
        ]
        assert "| kappa | Δ kappa |" in squeezed(render(records, "markdown"))

    def test_primary_that_is_not_listed_leads(self) -> None:
        records = [
            {**r, "measure": {"primary": "latency", "metrics": ["accuracy"], "latency": {"batch_sizes": [1]}}}
            for r in sample()
        ]
        assert "| arm | ok | latency b1 [ms] | Δ latency b1 [ms] | accuracy [%] |" in squeezed(
            render(records, "markdown")
        )
        assert make_table(records).primary == "latency_b1_ms"

    def test_arms_with_budgets_of_their_own_are_named(self) -> None:
        records = sample()
        for r in records:
            if r["arm"] == "distill":
                r["budget"] = "30 epochs, batch 64"
        assert "Another budget than the baseline: distill: 30 epochs, batch 64." in render(records, "markdown")

    def test_accelerator_stands_beside_the_processor(self) -> None:
        records = [{**r, "environment": {**r["environment"], "device": "NVIDIA L4"}} for r in sample()]
        assert "- NVIDIA L4, AMD EPYC 7763 64-Core Processor, 2 cores; cnnbench 0.1.0" in render(records, "markdown")

    def test_mixed_versions_all_show(self) -> None:
        records = sample()
        records[0]["environment"] = {**records[0]["environment"], "torch": "2.14.0"}
        text = render(records, "markdown")
        assert "torch 2.14.0" in text
        assert "torch 2.15.0" in text


def test_unknown_format_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown format 'markdwn': did you mean 'markdown'"):
        render(sample(), "markdwn")


def test_no_records() -> None:
    with pytest.raises(UsageError, match="no records"):
        render([], "csv")


def test_rendering_needs_no_torch() -> None:
    code = "import sys, cnnbench.tables; sys.exit(bool({'torch', 'cnnbench_plugins'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
