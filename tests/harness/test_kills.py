"""Runs killed at random moments: no trial that was completed is lost, and the table ends as that of an undisturbed run.

A process that has imported everything forks one for each run, since importing takes longer than running. Completed
trials are witnessed by an observer, which hears of them as soon as they are recorded, and tells a file of its own.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from cnnbench.quality import quality
from cnnbench.store import DAMAGED, FILE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills by POSIX signals")

ARMS = {"pruned": '{ compressor = { name = "prune_magnitude", sparsity = 0.9 } }'}
SEEDS = 3
TRIALS = 2 * SEEDS

WITNESS = """
import os
from cnnbench import hookimpl

@hookimpl
def cnnbench_trial_finished(record):
    file = os.open("witness", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, record["key"].encode() + b"\\n")
    os.close(file)
"""

FORKS = """
import contextlib, gc, json, os, sys
from cnnbench.cli import main

os.chdir(sys.argv[1])
with open("out", "w") as out, contextlib.redirect_stdout(out):  # imports all that a run needs
    assert main(["run", "suite.toml", "--cache", "cache", "--results", "results", "--executor", "inline"]) == 0
gc.freeze()  # else collections in the runs go through all that is imported
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(order["folder"])
        for descriptor, name, how in ((0, os.devnull, os.O_RDONLY), (1, "out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
                                      (2, "err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)):
            os.dup2(os.open(name, how), descriptor)
        code = main(order["arguments"])
        sys.stdout.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
"""


class Forks:
    """Starts runs, one at a time; the first one, undisturbed, is its own."""

    def __init__(self, undisturbed: Place) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKS, str(undisturbed.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            bufsize=0,
        )
        self.undisturbed = undisturbed
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def start(self, folder: Path, executor: str) -> int:
        arguments = ["run", "suite.toml", "--cache", "cache", "--results", "results", "--executor", executor]
        arguments += ["--workers", "2"] if executor == "local" else []
        order = {"folder": str(folder), "arguments": arguments}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        return int(self.line())

    def ended_within(self, seconds: float) -> bool:
        return bool(select.select([self.process.stdout], [], [], seconds)[0])

    def exit_code(self) -> int:
        return int(self.line())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@dataclass
class Tally:
    kills: int = 0
    completed_runs: int = 0
    witnessed: int = 0
    lost: list[str] = field(default_factory=list)
    repeated: int = 0
    damaged: int = 0
    scratch: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.completed_runs} runs taken to their end between them; {self.witnessed} trials "
            f"completed, {len(self.lost)} lost, {self.repeated} run again; {self.damaged} lines torn and set aside, "
            f"{self.scratch} half-done stages cleared"
        )


class Place:
    """A folder in which one run is killed and begun again until it ends."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "suite.toml").write_text(text)

    def lines(self) -> list[bytes]:
        """Whole lines of the record file."""
        file = self.folder / "results" / FILE
        return file.read_bytes().split(b"\n")[:-1] if file.exists() else []

    def records(self) -> dict[str, dict[str, Any]]:
        found = {}
        for line in self.lines():
            try:
                record = json.loads(line)
            except ValueError:  # torn by a kill, and the next record begins on a line of its own
                continue
            found[record["key"]] = record
        return found

    def witnessed(self) -> list[str]:
        file = self.folder / "witness"
        return file.read_text().splitlines() if file.exists() else []

    def scratch(self) -> list[Path]:
        return [path for path in (self.folder / "cache").glob("*/.*") if path.is_dir()]

    def table(self) -> str:
        return (self.folder / "out").read_text()


def what_counts(record: dict[str, Any]) -> dict[str, Any]:
    """A record without clocks and what is made of them."""
    names = ("key", "arm", "role", "changes", "seed", "status", "reason", "planned", "settings", "stages", "suite")
    kept = {name: record[name] for name in names}
    kept["metrics"] = quality(record)
    kept["confusion"] = record["details"].get("confusion")
    kept["history"] = record["details"].get("history")
    return kept


def nobody_left(session: int) -> bool:
    """Whether all processes of a run are gone; a fork server's children are not the run's own on paper."""
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                return False
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return True


def kill(process: int, how: str) -> None:
    """SIGKILL the driver alone, or with all of its processes; return when none is left."""
    (os.kill if how == "driver" else os.killpg)(process, signal.SIGKILL)
    end = time.monotonic() + 100
    while not nobody_left(process):
        assert time.monotonic() < end, "a worker outlived its run"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def text(install_module_plugin, tiny_suite) -> str:
    install_module_plugin("witness", WITNESS)
    return tiny_suite(ARMS, metrics=("accuracy", "nll"), seeds=SEEDS)


@pytest.fixture(scope="module")
def forks(tmp_path_factory, text) -> Iterator[Forks]:
    found = Forks(Place(tmp_path_factory.mktemp("kills") / "undisturbed", text))
    yield found
    found.close()


def survive(tmp_path: Path, text: str, forks: Forks, ways: list[tuple[str, str]], seed: int) -> Tally:
    """Kill a run in each of some ways (executor, whom), one after another, and hold what is left to what was there."""
    undisturbed = forks.undisturbed
    lasts: dict[str, float] = {}
    for executor in dict.fromkeys(executor for executor, _ in ways):
        alone = Place(tmp_path / f"undisturbed-{executor}", text)
        began = time.monotonic()
        forks.start(alone.folder, executor)
        assert forks.exit_code() == 0, (alone.folder / "err").read_text()
        lasts[executor] = time.monotonic() - began
        assert alone.table() == undisturbed.table()
    expected = {key: what_counts(record) for key, record in undisturbed.records().items()}
    assert len(expected) == TRIALS
    chance, tally = random.Random(seed), Tally()
    place = Place(tmp_path / "run0", text)

    def check(before: dict[str, dict[str, Any]]) -> None:
        after = place.records()
        tally.lost += [key for key in place.witnessed() if key not in after]
        tally.lost += [key for key, record in before.items() if after.get(key) != record]

    def finish(code: int) -> None:
        nonlocal place
        assert code == 0, (place.folder / "err").read_text()
        check(before)
        assert {key: what_counts(record) for key, record in place.records().items()} == expected
        assert place.table() == undisturbed.table()
        assert place.scratch() == [], "half-done stages were left behind"
        tally.completed_runs += 1
        tally.witnessed += len(set(place.witnessed()))
        tally.repeated += len(place.witnessed()) - len(set(place.witnessed()))
        aside = place.folder / "results" / DAMAGED
        tally.damaged += aside.read_bytes().count(b"\n") if aside.exists() else 0
        place = Place(tmp_path / f"run{tally.completed_runs}", text)

    for executor, whom in ways:
        killed = False
        while not killed:
            before, left = place.records(), len(place.scratch())
            process = forks.start(place.folder, executor)
            if forks.ended_within(chance.uniform(0, lasts[executor])):
                finish(forks.exit_code())
                continue
            kill(process, whom)
            code = forks.exit_code()
            if code != -signal.SIGKILL:  # it ended in the very moment
                finish(code)
                continue
            killed = True
            tally.kills += 1
            tally.scratch += left
            check(before)
    before = place.records()
    forks.start(place.folder, ways[0][0])
    finish(forks.exit_code())
    return tally


def test_a_few_kills_lose_no_completed_trial(tmp_path, text, forks):
    tally = survive(tmp_path, text, forks, [("inline", "driver")] * 3, seed=1)
    assert tally.lost == []
    assert tally.repeated == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_lose_no_completed_trial(tmp_path, text, forks):
    ways = [("local", "driver"), ("local", "group"), ("inline", "driver"), ("inline", "driver")] * 25
    tally = survive(tmp_path, text, forks, ways, seed=2)
    print(f"\n{tally}")
    assert tally.kills == len(ways) == 100
    assert tally.lost == []
    assert tally.repeated == 0
