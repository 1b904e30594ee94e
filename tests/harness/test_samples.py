"""Latency samples in pytest-benchmark's format: its own code reads them, and finds what was measured."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from pytest_benchmark import cli
from pytest_benchmark.logger import Logger
from pytest_benchmark.storage.file import FileStorage

from cnnbench.errors import StoreError, UsageError
from cnnbench.samples import FILE, benchmark_json, benchmarks, write_benchmark_json

SAMPLES = [2.0, 2.5, 2.25, 9.0, 2.0]  # ms


def record(arm="baseline", seed=0, status="ok", sha="0" * 64, samples=SAMPLES, planned=None, **more):
    """A record as a run leaves it."""
    taken = {
        "iterations": 3,
        "warmup": 12,
        "steady": True,
        "stopped": "precision",
        "threads": 2,
        "interval_ms": [2.0, 2.5],
    }
    latency = {str(size): {"samples_ms": [ms * size for ms in samples], **taken} for size in (32, 1)}
    return {
        "key": f"{sha[:4]}{arm}{seed}",
        "suite": {"name": "norms", "sha256": sha, "file": "norms.toml"},
        "arm": arm,
        "role": "baseline" if arm == "baseline" else "arm",
        "reference": None if arm == "baseline" else "baseline",
        "seed": seed,
        "status": status,
        "planned": planned or {"arms": ["baseline", "group norm"], "seeds": [0, 1]},
        "measure": {"latency": {"max_seconds": 2.0, "precision": 0.02}},
        "device": "cpu",
        "details": {"latency": latency, "noise": {"load": 0.5}},
        "environment": {"cpu": "Some CPU", "python": "3.11.9", "torch": "2.15.0", "revision": "0123456789ab"},
        "finished": f"2026-01-01T00:00:0{seed}+00:00",
        **more,
    }


def storage(folder):
    return FileStorage(folder, Logger(Logger.QUIET))


def read(*files):
    """What ``pytest-benchmark compare`` makes of files."""
    return list(storage(files[0].parent).load_benchmarks(*map(str, files)))


def test_samples_are_seconds_and_statistics_are_of_them():
    one, many = benchmarks(record())
    assert one.stats.data == pytest.approx(np.array(SAMPLES) / 1000)
    assert one.stats.median == pytest.approx(np.median(SAMPLES) / 1000)
    assert one.stats.stddev == pytest.approx(np.std(SAMPLES, ddof=1) / 1000)
    assert many.stats.median == pytest.approx(32 * np.median(SAMPLES) / 1000)
    assert one.iterations == 3


def test_batch_sizes_come_in_the_order_of_numbers():
    taken = {"samples_ms": SAMPLES, "iterations": 1}
    made = benchmarks(record(details={"latency": {"128": taken, "32": taken, "8": taken}}))
    assert [bench.params["batch"] for bench in made] == [8, 32, 128]


def test_names_tell_suite_arm_seed_and_batch_size():
    one, many = benchmarks(record("group norm", seed=1))
    assert one.fullname == "norms.toml::group norm[seed 1, batch 1]"
    assert one.name == "group norm[seed 1, batch 1]"
    assert (one.group, many.group) == ("norms, batch 1", "norms, batch 32")
    assert many.params == {"seed": 1, "batch": 32}


def test_what_the_samples_stand_for_comes_along():
    one, _ = benchmarks(record("group norm", seed=1))
    assert one.extra_info == {
        "arm": "group norm",
        "role": "arm",
        "seed": 1,
        "batch_size": 1,
        "reference": "baseline",
        "warmup": 12,
        "steady": True,
        "stopped": "precision",
        "threads": 2,
        "interval_ms": [2.0, 2.5],
        "noise": {"load": 0.5},
        "torch": "2.15.0",
    }
    assert one.options["max_time"] == 2.0
    assert one.options["precision"] == 0.02


@pytest.mark.parametrize("more", [{"status": "diverged"}, {"details": {}}, {"details": None}, {"samples": []}])
def test_a_trial_without_samples_has_no_benchmarks(more):
    assert benchmarks(record(**more)) == []


def test_only_the_latest_run_is_in_the_file():
    records = [record(sha="1" * 64), record("group norm", sha="1" * 64), record(seed=0), record("group norm", seed=1)]
    names = [bench["name"] for bench in benchmark_json(records)["benchmarks"]]
    assert names == [
        "baseline[seed 0, batch 1]",
        "baseline[seed 0, batch 32]",
        "group norm[seed 1, batch 1]",
        "group norm[seed 1, batch 32]",
    ]


def test_machine_and_revision_are_those_of_the_records():
    made = benchmark_json([record(), record(seed=1)])
    assert made["machine_info"]["cpu"] == {"brand_raw": "Some CPU"}
    assert made["machine_info"]["python_version"] == "3.11.9"
    assert (made["commit_info"]["id"], made["commit_info"]["dirty"]) == ("0123456789ab", False)
    assert made["datetime"] == "2026-01-01T00:00:01+00:00"


@pytest.mark.parametrize(
    ("revision", "commit", "dirty"), [("0123 with uncommitted changes", "0123", True), (None, "unversioned", False)]
)
def test_a_revision_may_be_changed_or_unknown(revision, commit, dirty):
    environment = {} if revision is None else {"revision": revision}
    found = benchmark_json([record(environment=environment)])["commit_info"]
    assert (found["id"], found["dirty"]) == (commit, dirty)


def test_there_is_no_json_of_no_records():
    with pytest.raises(UsageError, match="no records"):
        benchmark_json([])


def test_pytest_benchmark_reads_the_file(tmp_path):
    path = write_benchmark_json([record(), record("group norm")], tmp_path / "deep" / "results")
    assert path == tmp_path / "deep" / "results" / FILE
    assert [entry.name for entry in path.parent.iterdir()] == [FILE]
    found = read(path)
    assert found[0]["fullname"] == "norms.toml::baseline[seed 0, batch 1]"
    assert found[0]["median"] == pytest.approx(np.median(SAMPLES) / 1000)
    assert len(found) == 4


def test_compare_matches_two_runs_by_name(tmp_path, monkeypatch, capsys):
    old = write_benchmark_json([record(), record("group norm")], tmp_path / "1")
    slower = [ms * 1.5 for ms in SAMPLES]
    new = write_benchmark_json(
        [record(), record("group norm", samples=slower)], tmp_path / "2"
    )  # it sorts files by name, then folder
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pytest-benchmark", "compare", "--between=median", str(old), str(new)])
    cli.main()
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in shown if line.startswith("group norm")] == ["+50.0%"] * 2
    assert [line.split()[-1] for line in shown if line.startswith("baseline")] == ["+0.0%"] * 2


def test_a_run_without_latencies_leaves_no_file_of_an_earlier_one(tmp_path):
    write_benchmark_json([record()], tmp_path)
    assert write_benchmark_json([record(details={})], tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    assert write_benchmark_json([], tmp_path / "nowhere") is None
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file.benchmark\.json: can't be written") as caught:
        write_benchmark_json([record()], tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_the_file_is_strict_json(tmp_path):
    path = write_benchmark_json([record()], tmp_path)
    json.loads(path.read_text("utf-8"), parse_constant=pytest.fail)


def test_neither_torch_nor_pandas_nor_pytest_is_needed(tmp_path):
    code = (
        "import json, pathlib, sys\n"
        "from cnnbench.samples import write_benchmark_json\n"
        "write_benchmark_json(json.loads(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
        "print([name for name in ('torch', 'pandas', 'pytest', 'numpy') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, json.dumps([record()]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
    assert (tmp_path / FILE).exists()
