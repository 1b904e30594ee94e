"""Sessions: exclusive stages of one seed go to one worker together, and are taken apart when that worker is lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cnnbench.execute.cache import StageCache, filling, write_result
from cnnbench.execute.interface import Outcome, Task
from cnnbench.execute.scheduler import Ended, Scheduler, Started, TrialEnded
from cnnbench.plan import Plan, PlannedTrial, Stage
from cnnbench.stages.session import Member, Shelf, parts


class FakeExecutor:
    """Does each task at once; a worker that holds a bad one is lost with all that it held."""

    places = 2

    def __init__(self, cache: StageCache, lose: str = "", status: str = "crashed") -> None:
        self.cache = cache
        self.lose = lose
        self.status = status
        self.submitted: list[Task] = []
        self.events: list[Outcome] = []

    def submit(self, task: Task) -> None:
        self.submitted.append(task)
        lost = self.lose in {one.key for one in task.members}
        for one in task.members:
            if one.folder:
                if not lost:
                    with filling(self.cache.folder(one.key)) as scratch:
                        write_result(scratch, {"of": one.key})
                self.events.append(Outcome(one.key, self.status if lost else "ok", "because", result={}))

    def wait(self) -> list[Outcome]:
        events, self.events = self.events, []
        return events

    def close(self) -> None:
        pass

    def sessions(self) -> list[list[str]]:
        return [[one.key for one in task.members] for task in self.submitted if task.key.startswith("latency")]


def make_plan(arms: str = "abc", seeds: int = 2, **how: Any) -> Plan:
    """One training and one latency for each arm and seed; arm a is what the others are compared with."""
    stages: dict[str, Stage] = {}
    trials = []
    for arm in arms:
        for seed in range(seeds):
            train = Stage(f"train {arm}{seed}", "train", {}, (), "")
            reference = None if arm == "a" else f"latency a{seed}"
            latency = Stage(
                f"latency {arm}{seed}", "latency", {}, (train.key,), "", session=f"latency {seed}", reference=reference
            )
            latency = latency._replace(**how)
            stages |= {train.key: train, latency.key: latency}
            trial: Any = SimpleNamespace(seed=seed, arm=SimpleNamespace(name=arm))
            trials.append(PlannedTrial(trial, f"{arm}{seed}", {"train": train.key, "latency": latency.key}))
    return Plan(tuple(trials), stages)


def ended(events: list[Any]) -> dict[str, str]:
    return {event.stage.key: event.outcome.status for event in events if isinstance(event, Ended)}


def test_the_arms_of_a_seed_are_measured_together(tmp_path):
    cache = StageCache(tmp_path)
    executor = FakeExecutor(cache)
    events = list(Scheduler(make_plan(), frozenset(), cache, executor).run())
    assert executor.sessions() == [
        ["latency a0", "latency b0", "latency c0"],
        ["latency a1", "latency b1", "latency c1"],
    ]
    assert set(ended(events).values()) == {"ok"}
    assert sum(isinstance(event, Started) for event in events) == 12
    assert sum(isinstance(event, TrialEnded) for event in events) == 6


def test_stages_without_a_session_go_alone(tmp_path):
    cache = StageCache(tmp_path)
    executor = FakeExecutor(cache)
    list(Scheduler(make_plan(session=""), frozenset(), cache, executor).run())
    assert [len(session) for session in executor.sessions() if session[0] == "latency a0"] == [1]


def test_a_lost_session_is_taken_apart_so_that_its_culprit_alone_fails(tmp_path):
    cache = StageCache(tmp_path)
    executor = FakeExecutor(cache, lose="latency b0")
    events = list(Scheduler(make_plan(seeds=1), frozenset(), cache, executor).run())
    statuses = ended(events)
    assert statuses["latency a0"] == statuses["latency c0"] == "ok"
    assert statuses["latency b0"] == "crashed"
    # The second time b has a beside it, to be compared with, and only for that.
    first, *alone = executor.sessions()
    assert first == ["latency a0", "latency b0", "latency c0"]
    assert alone == [["latency a0"], ["latency b0", "latency a0"], ["latency c0", "latency a0"]]
    assert [task.folder == "" for task in executor.submitted[-1].beside] == [True]


def test_a_fault_that_left_the_worker_alive_is_final(tmp_path):
    cache = StageCache(tmp_path)
    executor = FakeExecutor(cache, lose="latency b0", status="failed")
    list(Scheduler(make_plan(seeds=1), frozenset(), cache, executor).run())
    assert len(executor.sessions()) == 1


def test_an_arm_that_comes_later_is_measured_beside_its_reference(tmp_path):
    cache = StageCache(tmp_path)
    list(Scheduler(make_plan("ab", 1), frozenset(), cache, FakeExecutor(cache)).run())
    executor = FakeExecutor(cache)
    events = list(Scheduler(make_plan("abc", 1), frozenset({"a0", "b0"}), cache, executor).run())
    assert executor.sessions() == [["latency c0", "latency a0"]]
    assert ended(events)["latency c0"] == "ok"
    assert "latency a0" not in ended(events)


def test_a_reference_whose_model_is_gone_is_done_without(tmp_path):
    cache = StageCache(tmp_path)
    list(Scheduler(make_plan("a", 1), frozenset(), cache, FakeExecutor(cache)).run())
    cache.forget("train a0")
    executor = FakeExecutor(cache)
    list(Scheduler(make_plan("ab", 1), frozenset({"a0"}), cache, executor).run())
    assert executor.sessions() == [["latency b0"]]


@pytest.mark.parametrize(("how", "again"), [({"remeasure": True}, 2), ({"fresh": True}, 4), ({}, 0)])
def test_measuring_again_trains_nothing_again(tmp_path, how, again):
    cache = StageCache(tmp_path)
    plan = make_plan("ab", 1)
    list(Scheduler(plan, frozenset(), cache, FakeExecutor(cache)).run())
    executor = FakeExecutor(cache)
    list(Scheduler(plan, frozenset(), cache, executor, **how).run())
    assert sum(len(task.members) for task in executor.submitted) == again


def test_the_time_limit_of_a_session_is_that_of_all_its_stages(tmp_path):
    cache = StageCache(tmp_path)
    executor = FakeExecutor(cache)
    list(Scheduler(make_plan(seeds=1), frozenset(), cache, executor, time_limit=10).run())
    limits = {task.key: task.time_limit for task in executor.submitted}
    assert {task.spec["workers"] for task in executor.submitted} == {2}
    assert limits == {"train a0": 10, "train b0": 10, "train c0": 10, "latency a0": 30}


def member(tmp_path, name: str, size: int, reference: str | None = None, runtime: Any = None) -> Member:
    file = tmp_path / name
    file.write_bytes(b"x" * size)
    return Member(name, {"settings": {"techniques": {"runtime": runtime}}, "reference": reference}, file)


def test_a_session_too_large_for_the_memory_is_measured_in_parts_each_with_the_reference(tmp_path):
    members = [member(tmp_path, "a", 10), *(member(tmp_path, name, 10, "a") for name in "bcd")]
    keys = [[one.key for one in part] for part in parts(members, free=8 * 30)]
    assert keys == [["a", "b", "c"], ["a", "d"]]
    assert [len(part) for part in parts(members, free=8 * 1000)] == [4]
    assert [len(part) for part in parts(members, free=0)] == [2, 2, 2]  # it must go on somehow
    assert [[one.key for one in part] for part in parts(members[:1])] == [["a"]]


class Closing:
    """A served model that counts how often it was let go of."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_what_is_served_is_kept_while_it_is_asked_for_and_then_let_go_of(tmp_path):
    made = []

    def prepare(folder):
        assert folder.is_dir()
        assert list(folder.iterdir()) == []
        made.append((Closing(), folder))
        return made[-1][0]

    shelf = Shelf()
    first, second = member(tmp_path, "a", 1), member(tmp_path, "b", 1)
    one = shelf.get(first, (1, 32), prepare)
    assert shelf.get(first, (32,), prepare) is one
    assert shelf.get(second, (32,), prepare) is not one
    assert shelf.get(first, (64,), prepare) is not one  # made ready for other sizes
    assert one.closed == 1
    shelf.keep_only([first])
    assert [served.closed for served, _ in made] == [1, 1, 0]
    shelf.close()
    assert [served.closed for served, _ in made] == [1, 1, 1]
    assert not any(folder.exists() for _, folder in made)
