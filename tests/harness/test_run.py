"""A run from plan to records: what runs, what does not run again, and who is told. The stages themselves are fakes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cnnbench.cli import main
from cnnbench.errors import Unsupported
from cnnbench.execute import inline
from cnnbench.store import Store

RAN: list[tuple[str, int, str]] = []
"""Kind, seed and techniques of each stage that ran in the present test."""


class FakeBench:
    """Does no work, tells two epochs of each training, and finds the same thing in the same stage."""

    broken: str = ""

    def __init__(self, registry: object) -> None:
        pass

    def run(self, task: Any, inputs: list[Path], folder: Path, tell: Any) -> dict[str, Any]:
        techniques = json.dumps({k: v for k, v in task["settings"]["techniques"].items() if v}, sort_keys=True)
        RAN.append((task["kind"], task["seed"], techniques))
        if FakeBench.broken and FakeBench.broken in techniques and task["kind"] != "rehearse":
            raise RuntimeError("broken")
        assert all((path / "result.json").exists() for path in inputs)
        if task["kind"] == "train":
            for epoch in range(2):
                tell({"epoch": epoch, "epochs": 2})
        value = (task["seed"] + len(techniques) % 7 + len(task["family"])) / 100
        return {"metrics": {"accuracy": value} if task["kind"] == "evaluate" else {}, "seconds": 0.5}

    def close(self) -> None:
        pass


class Place:
    """A folder with a suite, and the command run in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], tiny_suite: Any) -> None:
        self.folder = folder
        self.suite = folder / "tiny.toml"
        self.capsys = capsys
        self.tiny_suite = tiny_suite

    def write(self, arms: dict[str, str] | None = None, **top: Any) -> None:
        arms = {"shift": '{ augmentation = "translate" }', "silu": '{ activation = "silu" }'} if arms is None else arms
        self.suite.write_text(self.tiny_suite(arms, **{"seeds": 2, **top}))

    def run(self, *options: str, command: str = "run") -> tuple[int, str, str]:
        """Exit code, stdout, stderr; ``RAN`` holds what ran in it."""
        RAN.clear()
        inline_ = ["--executor", "inline"] if command == "run" and "--executor" not in options else []
        code = main([command, str(self.suite), *inline_, "--cache", str(self.folder / "cache"), *options])
        out, err = self.capsys.readouterr()
        return code, out, err

    def records(self, name: str = "tiny") -> list[dict[str, Any]]:
        return list(Store(self.folder / "results" / name).read().records)

    def statuses(self) -> dict[tuple[str, int], str]:
        return {(r["arm"], r["seed"]): r["status"] for r in self.records()}


@pytest.fixture
def place(tmp_path, monkeypatch, capsys, tiny_suite) -> Place:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inline, "Bench", FakeBench)
    monkeypatch.setattr(FakeBench, "broken", "")
    made = Place(tmp_path, capsys, tiny_suite)
    made.write()
    return made


def test_a_run_records_every_trial_and_prints_its_table(place):
    code, out, err = place.run()
    assert code == 0
    assert place.statuses() == {(arm, seed): "ok" for arm in ("baseline", "shift", "silu") for seed in (0, 1)}
    assert out.startswith("tiny: Does it work?")
    assert [kind for kind, _, _ in RAN[:3]] == ["rehearse"] * 3, "before anything is trained"
    assert len(RAN) == 3 + 12
    assert "[6/6] silu, seed 1: ok" in err


def test_what_is_on_record_neither_runs_nor_starts_a_worker_and_the_table_is_the_same(place, monkeypatch):
    from cnnbench.execute.local import LocalExecutor

    _, table, _ = place.run()
    before = (place.folder / "results" / "tiny" / "records.jsonl").read_bytes()

    def start(self, place):
        raise AssertionError("a worker was started")

    monkeypatch.setattr(LocalExecutor, "_start", start)
    code, again, err = place.run("--executor", "local")
    assert (code, again, RAN, err) == (0, table, [], "")
    assert (place.folder / "results" / "tiny" / "records.jsonl").read_bytes() == before


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_suite_file_lies_beside_its_records_byte_by_byte(place, mark):
    place.suite.write_bytes(mark + place.suite.read_bytes().replace(b"\n", b"\r\n"))
    place.run()
    kept = (place.folder / "results" / "tiny" / "tiny.toml").read_bytes()
    assert kept == place.suite.read_bytes()
    assert {r["suite"]["sha256"] for r in place.records()} == {hashlib.sha256(kept).hexdigest()}


def test_a_range_of_seeds_is_run(place):
    assert place.run("--seeds", "4-5")[0] == 0
    assert {seed for _, seed in place.statuses()} == {4, 5}
    assert {tuple(record["planned"]["seeds"]) for record in place.records()} == {(4, 5)}


@pytest.mark.parametrize("seeds", ["5-4", "-1-2", "a-b", "3-"])
def test_what_is_no_range_of_seeds_is_a_mistake(place, seeds, capsys):
    with pytest.raises(SystemExit):
        place.run(f"--seeds={seeds}")
    assert "expected a number, a range such as 5-9, or auto" in capsys.readouterr().err


def test_report_prints_the_table_of_the_run(place):
    _, table, _ = place.run("--quiet")
    assert main(["report", "results/tiny"]) == 0
    assert place.capsys.readouterr().out == table


def test_stages_on_disk_serve_another_results_folder(place):
    place.run()
    code, _, _ = place.run("--results", "elsewhere")
    assert (code, RAN) == (0, [])
    assert [r["status"] for r in Store(Path("elsewhere")).read().records] == ["ok"] * 6


def test_renaming_and_reordering_arms_reuses_their_results(place):
    place.run()
    place.write({"swish": '{ activation = "silu" }', "mirror": '{ augmentation = "translate" }'})
    code, out, _ = place.run()
    assert (code, RAN) == (0, [])
    rows = [line.split()[0] for line in out.splitlines() if "2/2" in line]
    assert rows == ["baseline", "swish", "mirror"]
    assert main(["report", "results/tiny"]) == 0
    reported = place.capsys.readouterr().out
    assert [line.split()[0] for line in reported.splitlines() if "2/2" in line] == rows


def test_a_new_arm_runs_alone(place):
    place.run()
    place.write({"shift": '{ augmentation = "translate" }', "tanh": '{ activation = "tanh" }'})
    place.run()
    kinds = {(kind, "tanh" in techniques) for kind, _, techniques in RAN}
    assert kinds == {("rehearse", True), ("train", True), ("evaluate", True)}


def test_more_seeds_run_the_new_ones_and_fewer_none(place):
    place.run()
    place.run("--seeds", "3")
    assert {seed for _, seed, _ in RAN} == {2}
    code, out, _ = place.run("--seeds", "1")
    assert (code, RAN) == (0, [])
    assert "1/1" in out


def test_only_runs_the_baseline_and_the_arm(place):
    _, out, _ = place.run("--only", "silu")
    assert place.statuses().keys() == {(arm, seed) for arm in ("baseline", "silu") for seed in (0, 1)}
    assert "shift" not in out
    code, out, _ = place.run()
    assert code == 0
    assert len(RAN) == 5
    assert [line.split()[0] for line in out.splitlines() if "2/2" in line] == ["baseline", "shift", "silu"]


def test_fresh_runs_everything_again(place):
    place.run()
    code, _, _ = place.run("--fresh")
    assert code == 0
    assert [kind for kind, _, _ in RAN[:3]] == ["rehearse"] * 3, "before anything is trained"
    assert len(RAN) == 3 + 12


@pytest.mark.parametrize("parts", [("--time-budget", "1h"), ("--seeds", "auto")], ids=["budget", "looks"])
def test_fresh_runs_nothing_twice_in_a_run_of_several_parts(place, parts):
    place.write(seeds=3)
    code, _, _ = place.run("--fresh", *parts)
    assert code == 0
    assert sorted(set(RAN)) == sorted(RAN)
    assert [kind for kind, _, _ in RAN].count("rehearse") == 3


def test_compressors_over_one_network_share_its_training(place):
    prune = '{{ compressor = {{ name = "prune_magnitude", sparsity = {} }} }}'
    place.write({f"prune {share}": prune.format(share) for share in (0.5, 0.8)}, seeds=1)
    place.run()
    assert [kind for kind, _, _ in RAN].count("train") == 1
    assert [kind for kind, _, _ in RAN].count("compress") == 2


def test_failures_cost_their_arm_show_in_the_table_and_run_again(place, monkeypatch):
    monkeypatch.setattr(FakeBench, "broken", "silu")
    code, out, err = place.run()
    assert code == 1
    assert "0/2" in next(line for line in out.splitlines() if line.startswith("silu"))
    assert "failed: silu: train: RuntimeError: broken (test_run.py, line" in " ".join(out.split())
    assert "[6/6] silu, seed 1: failed (train: RuntimeError: broken" in err
    assert {status for (arm, _), status in place.statuses().items() if arm != "silu"} == {"ok"}
    failed = [r for r in place.records() if r["arm"] == "silu"]
    assert all(r["metrics"] == {} and "RuntimeError: broken" in r["trace"] for r in failed)

    monkeypatch.setattr(FakeBench, "broken", "")
    code, out, _ = place.run()
    assert code == 0
    assert {(kind, "silu" in techniques) for kind, _, techniques in RAN} == {("train", True), ("evaluate", True)}
    assert "failed" not in out


def test_what_a_rehearsal_refuses_is_never_trained(place, monkeypatch):
    real = FakeBench.run

    def run(self, task, *rest):
        result = real(self, task, *rest)
        if task["kind"] == "rehearse" and "silu" in str(task["settings"]["techniques"]):
            raise Unsupported("no activation of that kind")
        return result

    monkeypatch.setattr(FakeBench, "run", run)
    code, out, _ = place.run()
    assert code == 0, "skipped for a stated reason"
    assert not [kind for kind, _, techniques in RAN if "silu" in techniques and kind != "rehearse"]
    assert place.statuses()["silu", 1] == "skipped"
    assert "skipped: silu: rehearse: no activation of that kind" in " ".join(out.split())


ADVISER = """
from cnnbench import hookimpl

@hookimpl
def cnnbench_advise_arm(settings):
    return ["shifts too much"] if settings["techniques"].get("augmentation") else []
"""


def test_advice_is_shown_before_the_run_and_under_the_table(place, install_plugin):
    install_plugin("adviser", ADVISER)
    assert "warning: shift: shifts too much" in place.run(command="plan")[1]
    code, out, err = place.run()
    assert code == 0
    assert err.splitlines()[0] == "warning: shift: shifts too much"
    assert "shift: shifts too much" in " ".join(out.split())
    (noted,) = {r["arm"] for r in place.records() if "shifts too much" in r["details"]["notes"]}
    assert noted == "shift"


def test_half_a_trial_is_kept_out_of_the_metrics(place, monkeypatch):
    real = FakeBench.run

    def run(self, task, *rest):
        result = real(self, task, *rest)
        if task["kind"] == "profile":
            raise RuntimeError("no profile")
        return {**result, "metrics": {**result["metrics"], "train_seconds": 1.0}} if task["kind"] == "train" else result

    monkeypatch.setattr(FakeBench, "run", run)
    place.suite.write_text(place.tiny_suite({}, metrics=("accuracy", "params")))
    code, _, _ = place.run()
    (record,) = place.records()
    assert (code, record["status"], record["metrics"]) == (1, "failed", {})
    assert record["details"]["partial"]["metrics"]["train_seconds"] == 1.0


def test_what_could_not_be_read_back_fails_its_trial_with_the_reason(place, monkeypatch):
    real = FakeBench.run

    def run(self, task, *rest):
        result = real(self, task, *rest)
        return {**result, "metrics": {"accuracy": "high"}} if task["kind"] == "evaluate" else result

    monkeypatch.setattr(FakeBench, "run", run)
    place.write({}, seeds=1)
    code, _, _ = place.run()
    (record,) = place.records()
    assert (code, record["status"], record["metrics"]) == (1, "failed", {})
    assert "what it found can't be recorded" in record["reason"]
    assert "accuracy" in record["reason"]


def test_the_placebo_is_the_baseline_under_other_streams(place):
    place.write(placebo=True)
    code, out, _ = place.run()
    assert code == 0
    placebo = [r for r in place.records() if r["role"] == "placebo"]
    baseline = [r for r in place.records() if r["role"] == "baseline"]
    assert [r["settings"] for r in placebo] == [r["settings"] for r in baseline]
    shared = {k for r in placebo for k in r["stages"].values()} & {k for r in baseline for k in r["stages"].values()}
    assert shared == {baseline[0]["stages"]["rehearse"]}
    assert any(line.startswith("placebo") for line in out.splitlines())


SKIPPER = """
from cnnbench import Requirement, hookimpl, technique

@technique("activation", "dear", requires=(Requirement("no_such_package_here", "dear"),))
class Dear:
    '''Needs a package.'''
    def __call__(self, module):
        return module

@hookimpl
def cnnbench_register_techniques():
    return [Dear]

@hookimpl
def cnnbench_check_trial(trial):
    silu = [c["name"] for c in trial["settings"]["techniques"].get("activation", ())] == ["silu"]
    return f"no silu on {trial['device']}" if silu and trial["seed"] == 1 else None
"""


@pytest.mark.parametrize("options", [(), ("--fresh",)])
def test_a_skipped_trial_shows_its_reason_and_is_no_failure(place, install_plugin, options):
    install_plugin("skipper", SKIPPER)
    place.write({"dear": '{ activation = "dear" }', "silu": '{ activation = "silu" }'})
    code, out, _ = place.run(*options)
    text = " ".join(out.split())
    assert code == 0
    assert place.statuses()["dear", 0] == place.statuses()["silu", 1] == "skipped"
    assert (
        "skipped: dear: dear needs no_such_package_here, which is not installed: pip install 'cnnbench[dear]'" in text
    )
    assert "skipped: silu (seed 1): no silu on cpu (skipper)" in text
    assert not [techniques for _, _, techniques in RAN if "dear" in techniques]
    # Nothing has changed: the next run adds nothing to the file, and prints the same table.
    before = (place.folder / "results" / "tiny" / "records.jsonl").read_bytes()
    assert place.run()[:2] == (0, out)
    assert RAN == []
    assert (place.folder / "results" / "tiny" / "records.jsonl").read_bytes() == before


WATCHER = """
import json
from cnnbench import hookimpl

def log(what, data):
    with open("hooks.jsonl", "a") as file:
        file.write(json.dumps([what, dict(data)]) + "\\n")

@hookimpl
def cnnbench_plan_ready(plan):
    log("plan_ready", plan)

@hookimpl
def cnnbench_trial_started(trial):
    log("trial_started", trial)

@hookimpl
def cnnbench_epoch_finished(trial, progress):
    log("epoch_finished", {**trial, **progress})

@hookimpl
def cnnbench_trial_finished(record):
    log("trial_finished", record)

@hookimpl
def cnnbench_run_finished(summary):
    log("run_finished", summary)

@hookimpl
def cnnbench_check_trial(trial):
    return "not today" if trial["arm"] == "shift" else None
"""


def told(name: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in Path("hooks.jsonl").read_text().splitlines()]
    return [data for what, data in events if what == name]


def test_observers_are_told_of_everything_once(place, install_plugin, monkeypatch):
    install_plugin("watcher", WATCHER)
    monkeypatch.setattr(FakeBench, "broken", "silu")
    place.run()
    (plan,) = told("plan_ready")
    assert plan == {"suite": "tiny", "arms": 3, "trials": 6, "stages": 10, "cached": 0, "workers": 1}
    started = [(trial["arm"], trial["seed"]) for trial in told("trial_started")]
    assert sorted(started) == [("baseline", 0), ("baseline", 1), ("silu", 0), ("silu", 1)]
    finished = [(r["arm"], r["seed"], r["status"]) for r in told("trial_finished")]
    assert sorted(finished) == [
        *(("baseline", seed, "ok") for seed in (0, 1)),
        *(("silu", seed, "failed") for seed in (0, 1)),
    ]
    assert [r for r in place.records() if r["arm"] == "baseline"] == [
        r for r in told("trial_finished") if r["arm"] == "baseline"
    ]
    epochs = [(e["arm"], e["seed"], e["epoch"]) for e in told("epoch_finished")]
    assert sorted(epochs) == [("baseline", seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    (summary,) = told("run_finished")
    assert summary.pop("seconds") >= 0
    statuses = {"ok": 2, "failed": 2, "skipped": 2}
    assert summary == {"suite": "tiny", "planned": 6, "statuses": statuses, "results": "results/tiny"}


def test_epochs_reach_the_viewer(place, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "cnnbench.progress_lines.PlainProgress.stage_advanced",
        lambda _, work, epoch, epochs: seen.append((work.label, epoch, epochs)),
    )
    place.run()
    label = "baseline, seed 1: train"
    assert [one for one in seen if one[0] == label] == [(label, 1, 2), (label, 2, 2)]


def test_a_shared_training_is_told_as_that_of_a_trial_that_runs(place, install_plugin):
    """``shift`` is skipped, and its training is that of the second arm too."""
    install_plugin("watcher", WATCHER)
    prune = 'compressor = { name = "prune_magnitude", sparsity = 0.5 }'
    place.write(
        {"shift": '{ augmentation = "translate" }', "pruned": f'{{ augmentation = "translate", {prune} }}'}, seeds=1
    )
    place.run()
    assert [trial["arm"] for trial in told("trial_started")] == ["baseline", "pruned"]
    assert {e["arm"] for e in told("epoch_finished")} == {"baseline", "pruned"}


def test_an_observer_that_raises_is_told_once_and_costs_nothing(place, install_plugin):
    source = (
        "from cnnbench import hookimpl\n@hookimpl\ndef cnnbench_epoch_finished(progress):\n    raise OSError('full')\n"
    )
    install_plugin("watcher", source)
    code, _, err = place.run()
    assert code == 0
    warnings = [line for line in err.splitlines() if "warning" in line]
    assert warnings == [
        "cnnbench: warning: plugin 'watcher' of watcher 1.0: cnnbench_epoch_finished failed: OSError: full (12 times)"
    ]


def test_a_second_run_on_the_same_results_is_refused_in_one_line(place):
    hold = (
        "import sys\nfrom pathlib import Path\nfrom cnnbench.store import Store\n"
        "with Store(Path('results/tiny')).exclusive():\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    other = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        code, out, err = place.run()
        assert (code, out, RAN) == (2, "", [])
        (line,) = err.splitlines()
        assert line.startswith("cnnbench: results/tiny: another run is writing here (process ")
        assert "--results" in line
    finally:
        other.communicate(b"", timeout=30)
    assert place.run()[0] == 0
    assert {path.name for path in Path("results/tiny").iterdir()} == {"records.jsonl", "tiny.toml"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "nonsense"], "nonsense"),
        (["--seeds", "0"], "--seeds: expected at least 1, got 0"),
        (["--workers", "0"], "--workers: expected at least 1, got 0"),
        (["--executor", "locl"], "--executor: unknown executor 'locl': did you mean 'local'?"),
        (["--only", "sliu"], "suite 'tiny' has no arm 'sliu': did you mean 'silu'?"),
        (["--results", "file/results"], "file/results: file is a file, expected a folder"),
        (["--cache", "file/cache"], "cache folder file/cache can't be written in: Not a directory; choose another"),
    ],
)
def test_what_can_not_be_done_is_one_line_and_nothing_runs(place, options, message):
    Path("file").write_text("in the way")
    code, out, err = place.run(*options)
    assert (code, out, RAN) == (2, "", [])
    (line,) = err.splitlines()
    assert line.startswith("cnnbench: ")
    assert message in line
    assert not Path("results").exists()


def test_ctrl_c_keeps_what_is_finished_and_the_next_run_goes_on(place, monkeypatch):
    real = FakeBench.run

    def interrupted(self, task, *rest):
        if "silu" in str(task["settings"]["techniques"]) and task["kind"] == "train":
            signal.raise_signal(signal.SIGINT)
        return real(self, task, *rest)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    try:
        with monkeypatch.context() as patch:
            patch.setattr(FakeBench, "run", interrupted)
            code, out, err = place.run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, out) == (130, "")
    assert "interrupted; finished work is kept" in err
    assert "Traceback" not in err
    assert set(place.statuses()) == {(arm, seed) for arm in ("baseline", "shift") for seed in (0, 1)}
    assert place.run()[0] == 0
    assert len(RAN) == 4


def test_several_suites_run_one_after_another(place, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(place.tiny_suite({"tanh": '{ activation = "tanh" }'}))
    code, out, _ = place.run(str(other))
    assert code == 0
    assert out.index("tiny: Does it work?") < out.index("other: Does it work?")
    assert len(place.records("other")) == 2
    code, _, err = place.run(str(other), "--results", "x")
    assert (code, RAN) == (2, [])
    assert "--results names one folder" in err


def test_suites_of_one_name_do_not_mix_their_records(place, tmp_path):
    (tmp_path / "sub").mkdir()
    twin = tmp_path / "sub" / "tiny.toml"
    twin.write_text(place.tiny_suite({}))
    code, _, err = place.run(str(twin))
    assert (code, RAN) == (2, [])
    assert err == "cnnbench: 2 of the suites would write to results/tiny: run them one by one, with --results\n"


def test_plan_of_a_new_suite_tells_its_size_and_makes_nothing(place):
    place.write(placebo=True)
    code, out, _ = place.run(command="plan")
    assert code == 0
    assert "4 arms x 2 seeds = 8 trials on cpu" in out
    assert "stages: 19 (3 rehearse, 8 train, 8 evaluate); sharing saves 5" in out
    assert "on disk: 0 of 8 trials recorded, 0 of 19 stages cached" in out
    told = "no earlier record of this suite on this machine says how long rehearse, train, evaluate takes"
    assert f"to run: 19 stages; {told}" in out
    assert "augmentation=translate" in out
    assert sorted(path.name for path in place.folder.iterdir()) == ["tiny.toml"]


def test_plan_of_a_finished_suite_has_nothing_to_run(place):
    place.run()
    _, out, _ = place.run(command="plan")
    assert "on disk: 6 of 6 trials recorded, 15 of 15 stages cached" in out
    assert "to run: nothing; the table is ready" in out


def test_plan_does_not_count_stages_on_disk_even_where_their_trials_are_not_on_record(place):
    place.run()
    _, out, _ = place.run("--results", "elsewhere", command="plan")
    assert "on disk: 0 of 6 trials recorded, 15 of 15 stages cached" in out
    assert "to run: nothing" in out


def test_plan_of_a_grown_suite_tells_the_cost_of_the_rest(place):
    place.run()
    place.write({"tanh": '{ activation = "tanh" }', "shift": '{ augmentation = "translate" }'}, seeds=1)
    _, out, _ = place.run(command="plan")
    assert "3 arms x 1 seed = 3 trials" in out
    assert "to run: 3 stages, about" in out


def test_plan_tells_what_would_be_skipped_and_why(place, install_plugin):
    install_plugin("skipper", SKIPPER)
    _, out, _ = place.run(command="plan")
    assert "will be skipped: silu: no silu on cpu (skipper) (1 trial)" in out


def test_plan_counts_seeds_towards_an_exact_test(place):
    # 2 / 2^n <= 0.05 / 2 from n = 7 on.
    assert "from 7 paired seeds" in place.run("--seeds", "6", command="plan")[1]
    assert "with 6 its p is 3.1 % at the least" in place.run("--seeds", "6", command="plan")[1]
    assert "at the least" not in place.run("--seeds", "7", command="plan")[1]
    assert "compared with nothing" in place.run("--only", "baseline", command="plan")[1]


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    from cnnbench.execute.cache import default_cache

    monkeypatch.setenv("CNNBENCH_CACHE", str(tmp_path / "here"))
    assert default_cache() == tmp_path / "here"
    monkeypatch.delenv("CNNBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    with contextlib.suppress(AssertionError):  # elsewhere than on Linux the user's cache has another place
        assert default_cache() == tmp_path / "user" / "cnnbench" / "stages"
