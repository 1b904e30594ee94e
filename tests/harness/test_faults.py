"""Techniques that take liberties with their process: the table of docs/faults.md, fault by fault."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

TAKES = 'augmentation = {{ name = "takes", how = "{}"{} }}'


def takes(how: str, step: int = 0) -> str:
    return TAKES.format(how, f", step = {step}" if step else "")


# The arm's change, how it ends, and what its record says: the reason, or a note where it is ok.
LIGHT = {
    "wrong shape": (
        takes("shape"),
        "failed",
        r"rehearse: augmentation 'takes' returned images as float32 \[\d+, 1, 8\] on cpu, expected a float tensor",
    ),
    "wrong device": (
        takes("meta"),
        "failed",
        r"rehearse: augmentation 'takes' returned images as .* on meta, expected .* on cpu",
    ),
    "infinite": (takes("inf"), "diverged", r"train: training loss is (nan|inf) in epoch 1 of 1"),
    "raises late": (takes("late", 2), "failed", r"train: RuntimeError: boom in step 2 \(liberties.py, line \d+\)"),
    "error can't travel": (
        takes("unpicklable_error"),
        "failed",
        r"train: Unpicklable: can't travel \(liberties.py, line \d+\)",
    ),
    "wrong penalty": (
        'regularizer = "wrong_penalty"',
        "failed",
        r"rehearse: regularizer 'wrong_penalty' returned penalty as float32 \[.*, expected a float tensor \[\]",
    ),
    "no optimizer": (
        'recipe = { optimizer = "no_optimizer" }',
        "failed",
        "rehearse: optimizer 'no_optimizer' returned list, expected a torch.optim.Optimizer",
    ),
    "no loss": (
        'recipe = { loss = "no_loss" }',
        "failed",
        "rehearse: loss 'no_loss' returned float as loss, expected a float tensor",
    ),
    "raises in surgery": ('norm = "raising"', "failed", r"train: KeyError: 'no such norm' \(liberties.py, line \d+\)"),
    "hook on the model": ('initializer = "hooking"', "failed", "train: .*can't be saved"),
    "not picklable": ('initializer = "unpicklable"', "failed", "train: .*can't be saved"),
    "mutates the data": (
        'input = "mutates"',
        "failed",
        "a technique wrote into the dataset's tensors: let it change a copy",
    ),
    "no model": (
        'compressor = "no_model"',
        "failed",
        "rehearse: compressor 'no_model' returned NoneType, expected an nn.Module",
    ),
    "weights of nan": ('compressor = "nan_weights"', "diverged", "evaluate: outputs are not finite"),
    "default dtype": (
        takes("dtype"),
        "ok",
        r"a technique changed torch's default dtype \(torch.float32 to torch.float64\)",
    ),
    "environment": (takes("environment"), "ok", r"a technique changed the environment \(LIBERTY\); it was put back"),
    "changes folder": (takes("chdir"), "ok", "a technique changed the working directory; it was put back"),
    "writes files": (
        takes("writes"),
        "ok",
        r"a technique wrote into the working directory \(folder, notes.txt\), which is each worker's own",
    ),
    "warnings": (
        takes("warnings"),
        "ok",
        r"a technique changed the warnings filters \(error for all\); they were put back",
    ),
    "threads": (takes("threads"), "ok", r"a technique changed torch's number of threads \(1 to 2\); it was put back"),
    "random seeds": (takes("rng"), "ok", ""),
    "hooks everywhere": (takes("hooks_everywhere"), "ok", r"a technique changed hooks on every module or optimizer"),
    "floods": (takes("flood"), "ok", ""),
    "ends its parent": (takes("ends_parent"), "ok", ""),
    "no more files": (
        takes("opens"),
        "failed",
        "Too many open files; a technique lowered its limits, or left files open",
    ),
    "no more room": (takes("limits", 2), "failed", "train: .* a technique lowered its limits, or left files open"),
    "closes others' files": (
        takes("closes"),
        "crashed",
        "lost its connection to the run: a technique closed file descriptors that are not its own",
    ),
    "covers others' files": (
        takes("covers"),
        "crashed",
        "lost its connection to the run: a technique closed file descriptors that are not its own",
    ),
    "leaves a process": (
        takes("children"),
        "ok",
        r"a technique left processes running \((leftover|python\S*)\); they were ended",
    ),
    "forks": (takes("forks"), "ok", r"a technique left processes running|^$"),
    "patches torch": (
        takes("patches"),
        "failed",
        "rehearse: a technique replaced torch.nn.functional.relu, which all trials",
    ),
    "patches Python": (
        takes("patches_python", 2),
        "failed",
        r"train: RuntimeError: boom \(liberties.py, line \d+\); a technique replaced json.dumps, which all trials",
    ),
    "leaves a thread": (
        takes("thread"),
        "ok",
        r"a technique left threads running \(spinner\); its process took no further task",
    ),
    "compiled fault": (
        takes("compiled_fault"),
        "crashed",
        r"its worker process was ended by SIGSEGV \(a fault in compiled code\), at liberties.py, line \d+",
    ),
}
HANGS = {
    "loops": (takes("loop"), "timeout", r"ran longer than its time limit of 20 s, at liberties.py, line \d+"),
    "loops in C": (takes("c_loop"), "timeout", r"ran longer than its time limit of 20 s, at liberties.py, line \d+"),
    "sleeps through SIGTERM": (
        takes("ignores_sigterm"),
        "timeout",
        r"ran longer than its time limit of 20 s, at liberties",
    ),
}
QUICK = (
    "wrong device",
    "mutates the data",
    "patches torch",
    "compiled fault",
    "environment",
    "leaves a process",
    "floods",
    "no more files",
    "closes others' files",
)
"""Those that no quicker test stands in for; the rest take half a minute and are slow tests."""
BY_ARM = [pytest.param(arm, marks=() if arm in QUICK else pytest.mark.slow) for arm in LIGHT]
HEALTHY = {"healthy": 'augmentation = "hflip"', "healthy too": 'activation = "silu"'}


def run(folder: Path, name: str, arms: dict[str, str], suite, workers: int = 2) -> SimpleNamespace:
    (folder / f"{name}.toml").write_text(suite({arm: f"{{ {change} }}" for arm, change in arms.items()}, time_limit=20))
    done = subprocess.run(  # noqa: PLW1510 - the exit code is what is tested
        [
            sys.executable,
            "-m",
            "cnnbench",
            "run",
            f"{name}.toml",
            "--cache",
            f"cache-{name}",
            "--workers",
            str(workers),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    lines = (folder / "results" / name / "records.jsonl").read_text().splitlines()
    return SimpleNamespace(done=done, records={r["arm"]: r for r in map(json.loads, lines)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory, install_module_plugin) -> Path:
    install_module_plugin("liberties", Path(__file__).with_name("taking_liberties.py").read_text())
    return tmp_path_factory.mktemp("liberties")


@pytest.fixture(scope="module")
def ran(folder, tiny_suite) -> SimpleNamespace:
    first, second = HEALTHY.items()
    arms = dict([first, *((name, LIGHT[name][0]) for name in QUICK), second])
    return run(folder, "quick", arms, tiny_suite)


@pytest.fixture(scope="module")
def ran_slow(folder, tiny_suite) -> SimpleNamespace:
    return run(folder, "rest", {name: change for name, (change, *_) in LIGHT.items() if name not in QUICK}, tiny_suite)


@pytest.fixture
def record(request, arm) -> dict:
    """Of the arm that a test is for."""
    return request.getfixturevalue("ran" if arm in QUICK else "ran_slow").records[arm]


@pytest.fixture(scope="module")
def undisturbed(folder, tiny_suite) -> SimpleNamespace:
    return run(folder, "undisturbed", HEALTHY, tiny_suite)


def said(record: dict) -> str:
    return record["reason"] or "\n".join(record["details"]["notes"])


def rows() -> dict[str, tuple[str, str]]:
    """Of the page's tables: status, and what stands in backquotes in the cell of what the record says."""
    page = (Path(__file__).parents[2] / "docs" / "faults.md").read_text("utf-8")
    cells = [
        line.strip("|").split(" | ") for line in page.splitlines() if line.startswith("| ") and " --- " not in line
    ]
    faults = [row for row in cells if len(row) == 4 and "`" in row[1]]
    found = {name.strip(): (status.strip(" `"), says) for name, status, says, _ in faults}
    return {name: (status, "".join(re.findall("`(.*?)`", says))) for name, (status, says) in found.items()}


def test_the_page_has_a_row_for_each():
    assert rows().keys() == LIGHT.keys() | HANGS.keys()


@pytest.mark.parametrize("arm", BY_ARM)
def test_the_page_tells_what_happens(record, arm):
    status, words = rows()[arm]
    assert status == record["status"]
    assert words in said(record)


@pytest.mark.parametrize("arm", BY_ARM)
def test_each_liberty_ends_as_the_table_says(record, arm):
    _, status, words = LIGHT[arm]
    assert record["status"] == status, record["reason"]
    assert re.search(words, said(record)), said(record)


def test_the_healthy_are_measured_as_if_the_others_were_not_there(ran, undisturbed):
    for arm in ("baseline", *HEALTHY):
        mine, alone = ran.records[arm], undisturbed.records[arm]
        assert mine["status"] == alone["status"] == "ok"
        assert {name: mine["metrics"][name] for name in ("accuracy", "f1_macro", "nll")} == {
            name: alone["metrics"][name] for name in ("accuracy", "f1_macro", "nll")
        }
        assert mine["details"]["history"] == alone["details"]["history"]
        assert mine["details"]["notes"] == alone["details"]["notes"]


def test_nothing_is_left_on_the_machine(ran):
    assert [one for one in psutil.process_iter() if one.name() == "leftover"] == []


def test_a_flood_reaches_neither_the_terminal_nor_the_records(ran):
    assert len(ran.done.stderr) < 50_000
    assert "flood" not in ran.done.stdout.replace("floods", "")
    assert all(len(json.dumps(record)) < 50_000 for record in ran.records.values())


def test_hooks_that_fail_are_told_once_and_cost_nothing(ran):
    assert "cnnbench_trial_finished failed: SystemExit: 5" in ran.done.stderr
    assert "cnnbench_describe_environment returned 42, expected" in ran.done.stderr


def test_a_crash_keeps_its_stack(ran):
    assert "in take" in ran.records["compiled fault"]["trace"]


@pytest.mark.slow
def test_what_never_ends_is_ended_with_the_place_where_it_was(folder, tiny_suite):
    found = run(folder, "hangs", {name: change for name, (change, *_) in HANGS.items()} | HEALTHY, tiny_suite, 3)
    for arm, (_, status, words) in HANGS.items():
        assert found.records[arm]["status"] == status
        assert re.search(words, found.records[arm]["reason"]), found.records[arm]["reason"]
    assert found.records["healthy"]["status"] == "ok"
