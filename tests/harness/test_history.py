"""The history of a metric: which records make a point, what stands apart, and the picture."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from cnnbench.cli import main
from cnnbench.errors import UsageError
from cnnbench.history import csv_text, history, in_order, table
from cnnbench.store import open_results

_spec = importlib.util.spec_from_file_location("synthetic_records", Path(__file__).with_name("synthetic_records.py"))
synthetic = importlib.util.module_from_spec(_spec)
sys.modules["synthetic_records"] = synthetic
_spec.loader.exec_module(synthetic)
Run, wobble = synthetic.Run, synthetic.wobble


def run(day, value=1.0, **more):
    """Two arms' latency at one revision, a day after the other."""
    arms = {
        "baseline": {"accuracy": 0.9, "latency_b1_ms": wobble(1.0, 0.01, day)},
        "arm": {"accuracy": wobble(0.8, 0.01, day), "latency_b1_ms": wobble(value, 0.01, day + 1)},
    }
    environment = {"revision": f"{day:012x}", **more.pop("environment", {})}
    return Run(arms, environment=environment, started=f"2026-01-{day:02d}T00:00:00+00:00", code=str(day), **more)


def of(*runs):
    """Records of runs, each in a file of its own."""
    return in_order(one.records for one in runs)


def test_a_point_is_a_revisions_mean_over_seeds_with_its_t_interval_in_the_order_of_running():
    found = history(of(run(2, 2.0), run(1)), "latency", ["arm"])
    assert [m.revision for m in found.moments] == ["000000000001", "000000000002"]
    (series,) = found.series
    assert (series.arm, series.machine, series.quantity.key) == ("arm", "", "latency_b1_ms")
    values = [record["metrics"]["latency_b1_ms"] for record in run(2, 2.0).of("arm")]
    point = series.points[found.moments[1]]
    known = scipy.stats.t.interval(0.95, 4, np.mean(values), scipy.stats.sem(values))
    assert (point.mean, point.low, point.high) == pytest.approx((np.mean(values), *known))


def test_the_order_of_lines_stands_where_the_clock_was_set_back():
    first, second = run(2), run(1, 3.0)
    found = history(in_order([[*first.records, *second.records]]), "latency", ["arm"])
    assert [m.revision for m in found.moments] == ["000000000002", "000000000001"]
    found = history(in_order([[*first.records, *second.records], run(3).records]), "latency", ["arm"])
    assert [m.revision[-1] for m in found.moments] == ["2", "1", "3"]


def test_of_one_revisions_runs_the_last_record_of_each_seed_counts():
    again = run(1, 3.0)
    for record in again.records:
        record["started"] = "2026-01-01T09:00:00+00:00"
    found = history(of(again, run(1)), "latency", ["arm"])
    assert len(found.moments) == 1
    assert found.series[0].points[found.moments[0]].mean == pytest.approx(3.0, rel=0.02)


@pytest.mark.parametrize("revision", ["", "abc with uncommitted changes"])
def test_code_that_no_revision_names_is_a_point_a_run(revision):
    runs = [run(day, environment={"revision": revision}) for day in (1, 2)]
    assert len(history(of(*runs), "latency").moments) == 2


def test_machines_stand_apart_for_timings_and_not_for_quality():
    xeon = {"cpu": "Xeon", "device": "Xeon"}
    records = of(run(1), run(2, environment=xeon), run(3))
    found = history(records, "latency", ["arm"])
    lengths = {one.machine: len(one.points) for one in found.series}
    assert lengths == {"AMD EPYC 7763, 2 threads": 2, "Xeon, 2 threads": 1}
    assert "Machines stand apart: their values do not compare." in found.notes
    assert [len(one.points) for one in history(records, "accuracy").series] == [3, 3]


def test_an_arm_whose_settings_changed_begins_a_new_line():
    changed = run(2)
    for record in changed.of("arm"):
        record["settings"]["recipe"]["epochs"] = 9
    found = history(of(run(1), changed), "accuracy")
    assert [(one.arm, len(one.points)) for one in found.series] == [
        ("baseline", 2),
        ("arm", 1),
        ("arm (settings 2)", 1),
    ]


def test_an_estimate_is_marked_in_every_form():
    records = of(run(1), run(2))
    for record in records:
        record["metrics"]["energy_inference_mj"] = 0.5
        record["methods"]["energy_inference_mj"] = "estimated"
        record["measure"]["metrics"].append("energy")
    found = history(records, "energy")
    assert all(one.mark == "est." and one.label.endswith("est.") for one in found.series)
    assert "est." in table(found)
    assert all(row["method"] == "estimated" for row in csv.DictReader(io.StringIO(csv_text(found))))


def test_what_is_not_ok_or_of_another_suite_is_no_point():
    broken = run(2).broken("arm", "failed", "bad", 0, 1, 2, 3, 4)
    for record in broken.of("arm"):
        record["metrics"] = {"latency_b1_ms": 99.0}
    other = run(1, name="other")
    found = history(of(other, run(1), broken), "latency")
    assert [(one.arm, len(one.points)) for one in found.series] == [("baseline", 2), ("arm", 1)]
    assert found.notes[-1] == "Left out: records of 1 other suite."


def test_few_seeds_of_latency_have_the_interval_of_their_samples():
    found = history(of(run(1, seeds=1, spread=0.05)), "latency", ["baseline"])
    (point,) = found.series[0].points.values()
    assert (point.low, point.high) == pytest.approx((0.95 * point.mean, 1.05 * point.mean))
    assert (point.n, history(of(run(1, seeds=1)), "accuracy").series[0].points[found.moments[0]].half) == (1, None)


def test_the_primary_metric_is_shown_unless_another_is_named():
    assert {one.quantity.key for one in history(of(run(1))).series} == {"accuracy"}


@pytest.mark.parametrize(
    ("metric", "arms", "said"),
    [
        ("latencies", [], "--metric: these records have no 'latencies': did you mean 'latency'?"),
        ("energy", [], "--metric: these records have no 'energy': known are accuracy, latency"),
        ("latency", ["arms"], "--arm: no arm 'arms' in these records: did you mean 'arm'?"),
    ],
)
def test_what_the_records_have_not_is_refused_with_the_nearest(metric, arms, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        history(of(run(1)), metric, arms)


def test_a_point_that_repeats_an_earlier_measurement_is_told():
    again = run(1)
    for record in again.records:
        record["environment"]["revision"] = "later"
    assert any("--fresh" in note for note in history(of(run(1), again), "latency").notes)
    assert not any("--fresh" in note for note in history(of(run(1), run(2)), "latency").notes)


# The command


@pytest.fixture
def folder(tmp_path):
    """One folder that holds three runs."""
    for day in (1, 2, 3):
        run(day, 1 + day / 10).write(tmp_path / "results")
    return tmp_path / "results"


def test_replaced_records_of_one_folder_are_points_too(tmp_path):
    first, second = run(1), run(2)
    for record in of(first, second):
        record["key"] = f"{record['arm']}{record['seed']}"
    first.write(tmp_path)
    second.write(tmp_path)
    assert len(open_results(tmp_path).records) == 10
    assert len(open_results(tmp_path, every=True).records) == 20
    assert len(history(open_results(tmp_path, every=True).records, "latency").moments) == 2


def test_folders_and_files_together_give_a_table(tmp_path, capsys):
    run(1).write(tmp_path / "a")
    run(2).write(tmp_path / "b")
    file = (tmp_path / "b" / "records.jsonl").rename(tmp_path / "b.jsonl")
    assert main(["history", str(tmp_path / "a"), str(file), "--metric", "latency", "--arm", "arm"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^arm: latency b1 \[ms\]$", out, re.MULTILINE)
    assert re.search(r"^  000000000001 2026-01-01  1\.00\d+ ± 0\.00\d+  \(n=5\)$", out, re.MULTILINE)
    assert "Machine: AMD EPYC 7763, 2 threads." in out


def test_csv_has_all_digits(folder, tmp_path):
    output = tmp_path / "out" / "h.csv"
    assert main(["history", str(folder), "--metric", "latency", "--output", str(output)]) == 0
    rows = list(csv.DictReader(io.StringIO(output.read_text("utf-8"))))
    assert len(rows) == 6
    known = np.mean([record["metrics"]["latency_b1_ms"] for record in run(3, 1.3).of("arm")])
    assert float(rows[-1]["mean"]) == pytest.approx(known, rel=1e-12)
    assert rows[-1]["revision"] == "000000000003"


@pytest.mark.parametrize("name", ["history.pdf", "history"])
def test_another_ending_is_refused(folder, capsys, name):
    assert main(["history", str(folder), "--output", name]) == 2
    assert "--output: expected a name that ends in .svg, .png or .csv" in capsys.readouterr().err


def test_runs_on_several_datasets_are_shown_one_by_one(folder, tmp_path, capsys):
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text("utf-8").splitlines()]
    both = tmp_path / "both"
    both.mkdir()
    text = "".join(
        json.dumps({**line, "dataset": label, "key": f"{label} {line['key']}"}) + "\n"
        for label in ("digits", "shapes")
        for line in lines
    )
    (both / "records.jsonl").write_text(text, "utf-8")
    assert main(["history", str(both)]) == 2
    assert "--dataset: these runs have several: expected one of 'digits', 'shapes'" in capsys.readouterr().err
    assert main(["history", str(both), "--dataset", "shape"]) == 2
    assert "did you mean 'shapes'?" in capsys.readouterr().err
    assert main(["history", str(folder)]) == 0
    alone = capsys.readouterr().out
    assert main(["history", str(both), "--dataset", "shapes"]) == 0
    assert capsys.readouterr().out == alone


def test_equal_histories_give_equal_pictures_with_labelled_axes(folder, tmp_path):
    files = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for file in files:
        assert main(["history", str(folder), "--metric", "latency", "--output", str(file)]) == 0
    one, two = (file.read_text("utf-8") for file in files)
    assert one == two
    assert "<dc:date>" not in one
    for label in ("latency b1 [ms]", "revision, in the order of running", "baseline", "00000000 2026-01-03"):
        assert f"<!-- {label} -->" in one


def test_a_picture_takes_any_name_and_hides_no_arm(tmp_path):
    names = ["_hidden", "$\\alpha$ & <b>", "$\\nope{$", "日本", "x" * 90, *(f"arm {n}" for n in range(8))]
    for day in (1, 2):
        arms = {name: {"accuracy": wobble(0.9, 0.01, day)} for name in names}
        started = f"2026-01-{day:02d}T00:00:00+00:00"
        Run(arms, reference="", environment={"revision": str(day)}, started=started).write(tmp_path)
    assert main(["history", str(tmp_path), "--output", str(tmp_path / "h.svg")]) == 0
    assert main(["history", str(tmp_path), "--output", str(tmp_path / "h.png")]) == 0
    text = (tmp_path / "h.svg").read_text("utf-8")
    assert all(f"<!-- {name} -->" in text for name in ("arm 0", "arm 7", " _hidden"))
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")
