"""Stacked recipes from the suite to the record: planned, handed to one worker, recorded seed by seed."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cnnbench import cli
from cnnbench.artifact import load_model
from cnnbench.execute.cache import StageCache
from cnnbench.execute.interface import Epoch, Outcome, Task
from cnnbench.execute.scheduler import Ended, Scheduler
from cnnbench.key_text import digest_of
from cnnbench.keys import Place
from cnnbench.plan import Plan, PlannedTrial, Stage, make_plan
from cnnbench.plugins import PluginHost
from cnnbench.stages.together import NOTE
from cnnbench.suite import load

if TYPE_CHECKING:
    from pathlib import Path

PLACE = Place("cpu", "cpu", "a machine")
AUGMENTATION = '''
"""Shifts images by a pixel; for one seed it raises in the third step."""

from dataclasses import dataclass

from cnnbench import hookimpl, technique


@technique("augmentation", "falls_over")
class FallsOver:
    """Raises for the stream of one seed."""

    first: int = 0

    def __call__(self, images, targets, generator):
        if generator.initial_seed() == self.first and len(images) < 64:
            raise ValueError("the third step")
        return images.roll(1, 3), targets


@hookimpl
def cnnbench_register_techniques():
    return [FallsOver]
'''


def written(tiny_suite: Any, folder: Path, arms: dict[str, str], recipe: str = "stacked = true", **top: Any) -> Path:
    text = tiny_suite(arms, **{"seeds": 3, **top}).replace("epochs = 1", f"epochs = 2\n{recipe}")
    file = folder / "suite.toml"
    file.write_text(text)
    return file


def planned(file: Path) -> Plan:
    host = PluginHost.discover()
    return make_plan(load(file, host.registry), host, PLACE)


def trainings(plan: Plan) -> list[Stage]:
    return [stage for stage in plan.stages.values() if stage.kind == "train"]


# The plan.


def test_seeds_of_an_arm_share_a_session(tiny_suite, tmp_path):
    plan = planned(written(tiny_suite, tmp_path, {"silu": '{ activation = "silu" }'}))
    sessions = [stage.session for stage in trainings(plan)]
    assert sorted(sessions) == ["train, baseline"] * 3 + ["train, silu"] * 3


def test_only_a_recipe_that_is_stacked_or_compiled_has_another_key(tiny_suite, tmp_path):
    keys = {}
    for recipe in ("", "stacked = false", "compiled = false", "stacked = true", "compiled = true"):
        plan = planned(written(tiny_suite, tmp_path, {}, recipe))
        keys[recipe] = tuple(stage.key for stage in trainings(plan))
        assert all(not stage.session for stage in trainings(plan)) or recipe == "stacked = true"
    assert keys[""] == keys["stacked = false"] == keys["compiled = false"]
    assert len({keys[""], keys["stacked = true"], keys["compiled = true"]}) == 3


@pytest.mark.parametrize("name", ["stacked", "compiled"])
def test_a_key_speaks_of_it_only_where_it_is_on(tiny_suite, tmp_path, monkeypatch, name):
    hashed: list[str] = []

    def watched(*parts: object) -> str:
        hashed.append(",".join(map(str, parts)))
        return digest_of(*parts)

    monkeypatch.setattr("cnnbench.keys.digest_of", watched)
    found = []
    for recipe in (f"{name} = false", f"{name} = true"):
        hashed.clear()
        planned(written(tiny_suite, tmp_path, {}, recipe))
        found.append(any(f'"{name}"' in text for text in hashed))
    assert found == [False, True]


def test_the_number_of_seeds_beside_it_is_in_no_key(tiny_suite, tmp_path):
    few, many = (trainings(planned(written(tiny_suite, tmp_path, {}, seeds=n))) for n in (2, 5))
    assert [stage.key for stage in few] == [stage.key for stage in many][:2]


def test_where_memory_is_asked_for_each_trains_by_itself(tiny_suite, tmp_path):
    plan = planned(written(tiny_suite, tmp_path, {}, metrics=("accuracy", "memory_train")))
    for stage in trainings(plan):
        assert not stage.session
        assert "memory_train is asked for" in stage.task["apart"]


# The scheduler.


class FakeExecutor:
    """Holds tasks until it is waited for, and then ends the oldest."""

    def __init__(self, places: int, lose: str = "") -> None:
        self.places = places
        self.lose = lose
        self.running: list[Task] = []
        self.submitted: list[Task] = []

    def submit(self, task: Task) -> None:
        assert len(self.running) < self.places
        self.running.append(task)
        self.submitted.append(task)

    def wait(self) -> list[Outcome]:
        task = self.running.pop(0)
        lost = self.lose in {one.key for one in task.members}
        return [Outcome(one.key, "crashed" if lost else "ok") for one in task.members]

    def close(self) -> None:
        pass

    def sessions(self) -> list[list[str]]:
        return [[one.key for one in task.members] for task in self.submitted]


def fake_plan(arms: str, seeds: int, stacked: str) -> Plan:
    stages, trials = {}, []
    for arm in arms:
        for seed in range(seeds):
            stage = Stage(f"{arm}{seed}", "train", {}, (), "", session=f"train, {arm}" if arm in stacked else "")
            stages[stage.key] = stage
            trial: Any = SimpleNamespace(seed=seed, arm=SimpleNamespace(name=arm))
            trials.append(PlannedTrial(trial, stage.key, {"train": stage.key}))
    return Plan(tuple(trials), stages)


@pytest.mark.parametrize(
    ("arms", "seeds", "places", "expected"),
    [
        ("a", 3, 1, [["a0", "a1", "a2"]]),
        ("ab", 2, 2, [["a0", "a1"], ["b0", "b1"]]),
        ("a", 5, 2, [["a0", "a1", "a2"], ["a3", "a4"]]),  # no place is idle for want of another arm
        ("ab", 4, 4, [["a0", "a1"], ["a2", "a3"], ["b0", "b1"], ["b2", "b3"]]),
        ("ab", 2, 1, [["a0", "a1"], ["b0", "b1"]]),
    ],
)
def test_seeds_go_to_one_worker_unless_another_would_be_idle(tmp_path, arms, seeds, places, expected):
    executor = FakeExecutor(places)
    events = list(Scheduler(fake_plan(arms, seeds, arms), frozenset(), StageCache(tmp_path), executor).run())
    assert executor.sessions() == expected
    assert {event.outcome.status for event in events if isinstance(event, Ended)} == {"ok"}


def test_trainings_without_a_session_go_one_by_one(tmp_path):
    executor = FakeExecutor(1)
    list(Scheduler(fake_plan("ab", 2, "b"), frozenset(), StageCache(tmp_path), executor).run())
    assert executor.sessions() == [["a0"], ["a1"], ["b0", "b1"]]


@pytest.mark.parametrize("culprit", ["a1", "b1"])
def test_a_lost_stack_is_taken_apart_and_one_beside_it_is_not(tmp_path, culprit):
    executor = FakeExecutor(2, lose=culprit)
    events = list(Scheduler(fake_plan("ab", 3, "ab"), frozenset(), StageCache(tmp_path), executor).run())
    ended = {event.stage.key: event.outcome.status for event in events if isinstance(event, Ended)}
    assert {key for key, status in ended.items() if status != "ok"} == {culprit}
    both = [["a0", "a1", "a2"], ["b0", "b1", "b2"]]
    assert executor.sessions() == [*both, *([f"{culprit[0]}{seed}"] for seed in range(3))]
    assert all("apart" in task.spec for task in executor.submitted[2:])
    assert not any("apart" in task.spec for task in executor.submitted[:2])


# A run.


def run(file: Path, folder: Path, *more: str) -> tuple[int, dict[tuple[str, int], dict[str, Any]]]:
    code = cli.main(["run", str(file), "--quiet", "--results", str(folder), "--cache", str(folder / "cache"), *more])
    lines = (folder / "records.jsonl").read_text().splitlines()
    return code, {(record["arm"], record["seed"]): record for record in map(json.loads, lines)}


ARMS = {
    "dropout": '{ regularizer = "dropout" }',
    "one by one": "{ recipe = { stacked = false } }",
}


@pytest.fixture(scope="module")
def found(tiny_suite, tmp_path_factory) -> tuple[int, dict[tuple[str, int], dict[str, Any]], Path]:
    folder = tmp_path_factory.mktemp("stacked")
    file = written(tiny_suite, folder, ARMS, seeds=2, metrics=("accuracy", "train_time", "energy_train"))
    return *run(file, folder / "results", "--executor", "inline"), folder / "results"


def test_records_are_those_of_one_by_one(found):
    code, records, folder = found
    assert code == 0
    for seed in range(2):
        stacked, alone = records["baseline", seed], records["one by one", seed]
        losses = [[epoch["train_loss"] for epoch in r["details"]["history"]] for r in (stacked, alone)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
        models = [
            load_model(folder / "cache" / r["stages"]["train"][:2] / r["stages"]["train"] / "model.pt").model
            for r in (stacked, alone)
        ]
        for one, other in zip(*(model.state_dict().values() for model in models), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)
    losses_of = {records["one by one", seed]["details"]["history"][-1]["train_loss"] for seed in range(2)}
    assert len(losses_of) == 2, "each seed has its own"


def test_records_say_that_cost_is_shared(found):
    _, records, _ = found
    for seed in range(2):
        record = records["baseline", seed]
        assert NOTE in record["details"]["notes"]
        stacked = record["details"]["stacked"]
        assert stacked["seeds"] == 2
        assert record["metrics"]["train_seconds"] == pytest.approx(stacked["seconds"] / 2)
        energy = record["details"]["energy_train"]["components"]
        total = sum(part["joules"] for part in energy.values())
        assert record["metrics"]["energy_train_j"] == pytest.approx(total)
        assert "memory_train_mib" not in record["metrics"]
    assert "stacked" not in records["one by one", 0]["details"]


def test_records_say_why_seeds_were_trained_one_by_one(found):
    _, records, _ = found
    for seed in range(2):
        record = records["dropout", seed]
        assert record["status"] == "ok"
        assert "trained one by one: its layers draw at random in training" in record["details"]["notes"]
        assert "stacked" not in record["details"]
    assert not any("one by one" in note for note in records["one by one", 0]["details"]["notes"])


def test_a_fault_of_one_seed_costs_that_seed_alone(tiny_suite, tmp_path, install_plugin):
    from cnnbench.seeds import Streams

    install_plugin("falls_over", AUGMENTATION)
    bad = Streams(1).generator("augmentation").initial_seed()
    file = written(tiny_suite, tmp_path, {"falls": f'{{ augmentation = {{ name = "falls_over", first = {bad} }} }}'})
    code, records = run(file, tmp_path / "results", "--only", "falls", "--executor", "inline")
    assert code == 1
    assert [records["falls", seed]["status"] for seed in range(3)] == ["ok", "failed", "ok"]
    assert "the third step" in records["falls", 1]["reason"]
    for seed in (0, 2):
        (note,) = [n for n in records["falls", seed]["details"]["notes"] if n.startswith("trained one by one")]
        assert "the third step" in note
    assert all(records["baseline", seed]["details"]["stacked"]["seeds"] == 3 for seed in range(3))


def test_epochs_of_each_seed_are_told(tiny_suite, tmp_path):
    from cnnbench.execute.inline import InlineExecutor

    host = PluginHost.discover()
    plan = planned(written(tiny_suite, tmp_path, {}, seeds=2))
    cache = StageCache(tmp_path / "cache")
    cache.prepare()
    executor = InlineExecutor(host)
    events = list(Scheduler(plan, frozenset(), cache, executor).run())
    executor.close()
    told = [(event.key, event.progress["epoch"]) for event in events if isinstance(event, Epoch)]
    keys = [stage.key for stage in trainings(plan)]
    assert sorted(told) == sorted((key, epoch) for key in keys for epoch in (0, 1))
