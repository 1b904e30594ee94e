"""Runs that are killed or interrupted lose what was in flight alone; the next run ends as one undisturbed would.

Whole commands with real workers: these are the seconds that it takes to believe it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from cnnbench.cli import main

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills by POSIX signals")

ARMS = {
    "flip": '{ augmentation = "hflip" }',
    "pruned": '{ compressor = { name = "prune_magnitude", sparsity = 0.9 } }',
}
TRIALS = 6

# Counts finished trials, and after so many of them holds the run: it can then be stopped at a known place.
GATE = """
import os, pathlib, sys, time
from cnnbench import hookimpl

@hookimpl
def cnnbench_run_finished(summary):
    pathlib.Path("modules").write_text(" ".join(sys.modules))

@hookimpl
def cnnbench_trial_finished(record):
    limit = int(os.environ.get("GATE", "1000"))
    done = pathlib.Path("finished")
    done.write_text(done.read_text() + "x" if done.exists() else "x")
    while len(done.read_text()) >= limit:
        time.sleep(0.01)
"""


class Bystander:
    """One folder and the commands run in it."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "suite.toml").write_text(text)

    def start(self, **environment: str) -> subprocess.Popen[str]:
        (self.folder / "finished").unlink(missing_ok=True)
        return subprocess.Popen(
            [sys.executable, "-m", "cnnbench", "run", "suite.toml", "--cache", "cache", "--workers", "2"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Whoever started these tests in the background made them, and all below them, deaf to Ctrl-C.
            preexec_fn=_hear_interrupts,  # noqa: PLW1509 - nothing but a system call
        )

    def finish(self) -> tuple[str, str]:
        """Run to the end: stdout and stderr."""
        run = self.start()
        out, err = run.communicate(timeout=200)
        assert run.returncode == 0, err
        return out, err

    def stopped_after(self, count: int) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
        """A run that waits after its ``count``-th trial with workers at work, and all the processes below it."""
        run = self.start(GATE=str(count))
        wait_for(lambda: self.finished() >= count or run.poll() is not None)
        assert run.poll() is None, run.communicate()[1]
        below = psutil.Process(run.pid).children(recursive=True)
        # A fork server's children are not the run's own on paper.
        below += [p for p in psutil.process_iter() if session_of(p.pid) == run.pid and p.pid != run.pid]
        assert len({p.pid for p in below}) >= 3, "a fork server and two workers"
        return run, below

    def finished(self) -> int:
        file = self.folder / "finished"
        return len(file.read_text()) if file.exists() else 0

    def records(self) -> dict[tuple[str, int], dict[str, Any]]:
        lines = (self.folder / "results" / "suite" / "records.jsonl").read_text().splitlines()
        return {(r["arm"], r["seed"]): r for r in map(json.loads, lines)}

    def trained(self) -> set[str]:
        """Stages with a result on disk."""
        return {path.parent.name for path in (self.folder / "cache").rglob("result.json")}


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


def wait_for(condition: Any, seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def what_counts(record: dict[str, Any]) -> dict[str, Any]:
    """A record without clocks: times, energies made of them, and memory, which depends on what ran before."""
    timed = ("train_seconds", "energy_train_j", "co2_train_mg", "memory_train_mib")
    kept = {
        name: record[name]
        for name in ("key", "arm", "role", "changes", "seed", "status", "reason", "planned", "settings", "stages")
    }
    kept["metrics"] = {name: value for name, value in record["metrics"].items() if name not in timed}
    kept["confusion"] = record["details"].get("confusion")
    kept["history"] = record["details"].get("history")
    return kept


@pytest.fixture(scope="module")
def text(install_module_plugin, tiny_suite) -> str:
    install_module_plugin("gate", GATE)
    return tiny_suite(ARMS, metrics=("accuracy", "nll", "params_nonzero"), seeds=2)


def test_a_run_that_is_interrupted_and_killed_ends_as_one_undisturbed(tmp_path, text, monkeypatch, capsys):
    # The undisturbed one runs in this process: executors must not differ in what they find either.
    undisturbed = Bystander(tmp_path / "undisturbed", text)
    monkeypatch.chdir(undisturbed.folder)
    assert main(["run", "suite.toml", "--cache", "cache", "--executor", "inline", "--quiet"]) == 0
    table = capsys.readouterr().out
    assert len(undisturbed.records()) == TRIALS

    disturbed = Bystander(tmp_path / "disturbed", text)

    # Ctrl-C reaches every process of the terminal's group.
    run, below = disturbed.stopped_after(2)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "cnnbench: interrupted; finished work is kept, the same command goes on from here"
    assert "Traceback" not in err
    wait_for(lambda: gone(below), 30)
    before = disturbed.records()
    assert len(before) == 2
    stages = disturbed.trained()

    # SIGKILL of the run alone: nobody is left to tell the workers.
    run, below = disturbed.stopped_after(2)
    run.kill()
    run.communicate(timeout=60)
    wait_for(lambda: gone(below), 30)
    after = disturbed.records()
    assert len(after) == 4
    assert before.items() <= after.items(), "a finished trial ran again"
    assert stages < disturbed.trained()

    resumed, _ = disturbed.finish()
    assert "torch" not in (disturbed.folder / "modules").read_text().split(), "it takes seconds: workers alone need it"
    assert disturbed.finished() == TRIALS - 4
    assert {key: what_counts(r) for key, r in disturbed.records().items()} == {
        key: what_counts(r) for key, r in undisturbed.records().items()
    }
    assert after.items() <= disturbed.records().items()
    assert resumed == table, "accuracies, counts and footnotes alike"
    assert list((disturbed.folder / "cache").rglob(".*")) == [], "half-done stages were left behind"


def test_workers_outlive_neither_a_killed_run_nor_their_own_task(tmp_path, text, install_module_plugin):
    """A worker in the middle of a task that never ends still ends with its run."""
    install_module_plugin("misbehaving", Path(__file__).with_name("misbehaving.py").read_text())
    hangs = 'hangs = { augmentation = { name = "bad_step", how = "sleep" } }\n'
    alone = text.replace("seeds = 2", "seeds = 1").partition("[arms]")[0]
    hanging = Bystander(tmp_path / "hanging", f"{alone}[arms]\n{hangs}")
    run, below = hanging.stopped_after(1)

    def scratch() -> list[Path]:
        return list((hanging.folder / "cache").rglob(".*"))

    wait_for(scratch)
    run.kill()
    run.communicate(timeout=60)
    wait_for(lambda: gone(below), 30)
    assert scratch() == []
