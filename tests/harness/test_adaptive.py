"""``--seeds auto``: which arms get more seeds, when it stops, and that a stopped run goes on where it was."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from cnnbench.adaptive import undecided
from cnnbench.cli import main
from cnnbench.execute import inline
from cnnbench.frame import current
from cnnbench.store import Store

if TYPE_CHECKING:
    from pathlib import Path

ARMS = {
    "hopeless": '{ augmentation = "hflip" }',
    "like it": '{ activation = "silu" }',
}
STATISTICS = "\n[statistics]\nmost_seeds = {}\n"
SHIFTS = {"hflip": -0.4, "silu": 0.0, "gelu": 0.0}


class FakeBench:
    """Finds an accuracy of noise, and of the shifts of the techniques."""

    trained: ClassVar[Counter[tuple[str, int, str]]] = Counter()
    broken: tuple[str, set[int]] = ("", set())
    stop_after = math.inf

    def __init__(self, registry: object) -> None:
        pass

    def run(self, task: Any, inputs: list[Path], folder: Path, tell: Any) -> dict[str, Any]:
        if task["kind"] == "rehearse":
            return {"metrics": {}, "seconds": 0.0}
        settings = task["settings"]
        names = json.dumps([settings["techniques"], settings["dataset"]], sort_keys=True)
        if task["kind"] == "train":
            FakeBench.trained[names, task["seed"], task["family"]] += 1
            if sum(FakeBench.trained.values()) > FakeBench.stop_after:
                signal.raise_signal(signal.SIGINT)
            name, seeds = FakeBench.broken
            if name and name in names and task["seed"] in seeds:
                raise RuntimeError("broken")
            return {"metrics": {}, "seconds": 0.5}
        noise = np.random.default_rng([task["seed"], len(names), len(task["family"])]).normal(scale=0.01)
        value = 0.7 + noise + sum(shift for name, shift in SHIFTS.items() if name in names)
        return {"metrics": {"accuracy": value} if task["kind"] == "evaluate" else {}, "seconds": 0.5}

    def close(self) -> None:
        pass


class Place:
    """A folder with a suite, and the command run in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], tiny_suite: Any) -> None:
        self.folder, self.capsys, self.tiny_suite = folder, capsys, tiny_suite
        self.suite = folder / "tiny.toml"

    def write(self, arms: dict[str, str] | None = None, most: int = 6, **top: Any) -> None:
        text = self.tiny_suite(ARMS if arms is None else arms, **{"seeds": 2, "placebo": True, **top})
        self.suite.write_text(text + STATISTICS.format(most))

    def run(self, *options: str, command: str = "run") -> tuple[int, str, str]:
        """Exit code, stdout, stderr; ``FakeBench.trained`` counts what was trained in it."""
        FakeBench.trained.clear()
        how = ["--executor", "inline"] if command == "run" else []
        code = main(
            [command, str(self.suite), *how, "--seeds", "auto", "--cache", str(self.folder / "cache"), *options]
        )
        out, err = self.capsys.readouterr()
        return code, out, err

    @property
    def file(self) -> Path:
        return self.folder / "results" / "tiny" / "records.jsonl"

    def counts(self) -> dict[str, int]:
        """Seeds planned and run by arm, of the latest run."""
        trials = current(Store(self.file.parent).read().records)
        assert {arm: len(trials.of(arm)) for arm in trials.arms} == {a: len(trials.seeds_of(a)) for a in trials.arms}
        return {arm: len(trials.of(arm)) for arm in trials.arms}


@pytest.fixture
def place(tmp_path, monkeypatch, capsys, tiny_suite) -> Place:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inline, "Bench", FakeBench)
    monkeypatch.setattr(FakeBench, "broken", ("", set()))
    monkeypatch.setattr(FakeBench, "stop_after", math.inf)
    FakeBench.trained.clear()
    made = Place(tmp_path, capsys, tiny_suite)
    made.write()
    return made


def row(table: str, arm: str) -> str:
    return next(line for line in table.splitlines() if line.startswith(arm))


def test_a_hopeless_arm_is_decided_early_and_the_others_go_on(place):
    place.write(most=9)
    code, table, err = place.run()
    assert code == 0
    assert place.counts() == {"baseline": 9, "hopeless": 4, "like it": 9, "placebo": 9}
    assert "4/4" in row(table, "hopeless")
    assert "worse" in row(table, "hopeless")
    assert "9/9" in row(table, "like it")
    assert "unresolved (n=9)" in row(table, "like it")
    assert "pending" not in table
    assert "more seeds for like it, as yet undecided: 6 trials" in err
    assert "1 of 2 arms decided, 1 open at 9 seeds" in err
    planned = current(Store(place.file.parent).read().records).heading["planned"]
    assert planned["looks"] == [4, 6, 9]
    assert planned["seeds"] == list(range(9))
    assert planned["seeds_of"]["hopeless"] == [0, 1, 2, 3]
    assert set(FakeBench.trained.values()) == {1}
    assert sum(FakeBench.trained.values()) == 4 + 3 * 9


def test_the_same_command_again_runs_and_writes_nothing(place):
    _, table, _ = place.run()
    before = place.file.read_bytes()
    code, again, err = place.run()
    assert (code, again, err) == (0, table, "")
    assert not FakeBench.trained
    assert place.file.read_bytes() == before
    assert main(["report", str(place.file.parent)]) == 0
    assert place.capsys.readouterr().out.splitlines()[:8] == table.splitlines()[:8]


def test_a_stopped_run_goes_on_where_it_was(place, monkeypatch):
    place.write(most=9)
    _, table, _ = place.run("--results", "undisturbed", "--cache", "other")
    left = 31
    for done in (3, 15, 8):  # within the first look, the second, the third
        monkeypatch.setattr(FakeBench, "stop_after", done)
        assert place.run()[0] == 130
        left -= done
    monkeypatch.setattr(FakeBench, "stop_after", math.inf)
    code, resumed, _ = place.run()
    assert code == 0
    assert resumed == table.replace("undisturbed", "results/tiny")
    assert sum(FakeBench.trained.values()) == left


def test_seeds_that_were_there_before_are_taken_over(place):
    assert main(["run", str(place.suite), "--executor", "inline", "--cache", "cache", "--seeds", "5"]) == 0
    place.capsys.readouterr()
    code, table, _ = place.run()
    assert code == 0
    assert "4/4" in row(table, "hopeless")
    assert sum(FakeBench.trained.values()) == 3  # the sixth seed of all but one


def test_fresh_runs_every_trial_once(place):
    place.run()
    code, _, _ = place.run("--fresh")
    assert code == 0
    assert sum(FakeBench.trained.values()) == 22
    assert set(FakeBench.trained.values()) == {1}
    assert place.counts() == {"baseline": 6, "hopeless": 4, "like it": 6, "placebo": 6}


def test_what_fails_under_every_first_seed_gets_no_more(place, monkeypatch):
    monkeypatch.setattr(FakeBench, "broken", ("silu", set(range(6))))
    place.write({**ARMS, "gelu": '{ activation = "gelu" }'})
    code, table, _ = place.run()
    assert code == 1
    assert place.counts() == {"baseline": 6, "hopeless": 4, "like it": 4, "gelu": 6, "placebo": 6}
    assert "0/4" in row(table, "like it")
    assert set(FakeBench.trained.values()) == {1}, "a failure is not tried again at the next look"


def test_what_fails_now_and_then_goes_on_with_the_pairs_there_are(place, monkeypatch):
    monkeypatch.setattr(FakeBench, "broken", ("silu", {1, 5}))
    code, table, _ = place.run()
    assert code == 1
    assert "4/6" in row(table, "like it")
    assert "unresolved (n=4)" in row(table, "like it")
    monkeypatch.setattr(FakeBench, "broken", ("", set()))
    code, table, _ = place.run()
    assert code == 0
    assert "6/6" in row(table, "like it")
    assert sum(FakeBench.trained.values()) == 2, "in a new call a failure runs again"


def test_what_an_open_arm_is_compared_with_goes_on_with_it(place):
    place.write({**ARMS, "beside": '{ augmentation = "hflip", activation = "silu", against = "hopeless" }'})
    _, table, _ = place.run()
    assert place.counts() == {"baseline": 6, "hopeless": 6, "like it": 6, "beside": 6, "placebo": 6}
    assert "worse" in row(table, "hopeless")


def test_a_decided_run_stops_at_once(place):
    place.write({"hopeless": ARMS["hopeless"]})
    _, _, err = place.run()
    assert place.counts() == {"baseline": 4, "hopeless": 4, "placebo": 4}
    assert "the arm decided after 4 of at most 6 seeds" in err.replace("\n", " ")


def test_the_plan_tells_what_is_left_by_the_looks_that_were_taken(place):
    _, out, _ = place.run(command="plan")
    assert "to run: at most 51 stages" in out
    place.run("--time-budget", "0.001s")
    _, out, _ = place.run(command="plan")
    assert "to run: at most 12 stages" in out, "two seeds of three arms, the decided one has its four"
    place.run()
    _, out, _ = place.run(command="plan")
    assert "to run: nothing: 1 of 2 arms decided, 1 open at 6 seeds" in out
    place.write({"hopeless": ARMS["hopeless"]})
    _, out, _ = place.run("--results", "other", command="plan")
    assert "nothing" not in out
    place.run("--results", "other")
    _, out, _ = place.run("--results", "other", command="plan")
    assert "to run: nothing: the arm decided after 4 of at most 6 seeds" in out


def test_a_budget_stops_between_looks_and_a_later_call_goes_on(place):
    code, table, err = place.run("--time-budget", "0.001s")
    assert code == 0
    assert place.counts() == {"baseline": 4, "hopeless": 4, "like it": 4, "placebo": 4}
    assert "unresolved (n=4)" in row(table, "like it")
    assert "stopped by --time-budget" in err
    assert "like it undecided" in err
    place.run("--time-budget", "0.001s")
    assert place.counts()["like it"] == 6, "a call runs one look at least"


def test_an_arm_goes_on_until_every_dataset_has_decided(place):
    one = '{ name = "digits", train_size = 200, test_size = 100 }'
    text = place.tiny_suite(ARMS)
    assert one in text
    place.suite.write_text(
        text.replace(one, f'[{one}, {{ name = "digits", train_size = 300 }}]') + STATISTICS.format(6)
    )
    code, _, err = place.run()
    assert code == 0, err
    records = Store(place.file.parent).read().records
    assert Counter(record["arm"] for record in records) == {"baseline": 12, "hopeless": 8, "like it": 12}
    assert undecided(records) == ["like it"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "0"], "--seeds: expected at least 1, got 0"),
    ],
)
def test_mistakes_are_told_before_anything_runs(place, options, message):
    assert main(["run", str(place.suite), *options]) == 2
    assert message in place.capsys.readouterr().err
    assert not FakeBench.trained


def test_a_word_that_is_not_auto_is_refused(place):
    with pytest.raises(SystemExit):
        main(["run", str(place.suite), "--seeds", "many"])
    assert "--seeds: expected a number, a range such as 5-9, or auto, got 'many'" in place.capsys.readouterr().err


def test_a_primary_metric_without_verdicts_is_refused(place):
    place.suite.write_text(place.tiny_suite(ARMS).replace("[measure]", '[measure]\nprimary = "train_time"'))
    assert place.run()[0] == 2
    code, _, err = place.run(command="plan")
    assert code == 2
    assert "train_time gets no verdict" in err


REAL = """
question = "Does it learn?"
dataset = "digits"
model = { name = "resnet", depth = 8, width = 4 }
placebo = true
[recipe]
epochs = 2
optimizer = { name = "sgd", lr = 0.1, momentum = 0.9 }
[arms]
"hopeless" = { recipe = { optimizer = { name = "sgd", lr = 1e-7 } } }
"hard swish" = { activation = "hard_swish" }
[statistics]
most_seeds = 6
[measure]
metrics = ["accuracy", "params"]
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(os.name != "posix", reason="kills by POSIX signals")
def test_real_trainings_killed_and_resumed_come_to_the_same_table(tmp_path):
    def start(folder: str) -> subprocess.Popen[str]:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "auto.toml").write_text(REAL)
        return subprocess.Popen(
            [sys.executable, "-m", "cnnbench", "run", "auto.toml", "--seeds", "auto", "--cache", "c", "--workers", "2"],
            cwd=tmp_path / folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    whole, _ = start("undisturbed").communicate()
    assert "4/4" in row(whole, "hopeless")
    assert "worse" in row(whole, "hopeless")
    assert "6/6" in row(whole, "hard swish")
    assert "6/6" in row(whole, "placebo")
    killed = start("killed")
    file = tmp_path / "killed" / "results" / "auto" / "records.jsonl"
    while not file.exists() or len(file.read_text().splitlines()) < 9:
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    resumed, _ = start("killed").communicate()
    assert resumed == whole
