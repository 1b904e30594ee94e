"""The scheduler against a fake executor: order, sharing, failures, exclusivity, resume."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.errors import StoreError
from cnnbench.execute.cache import StageCache, filling, write_result
from cnnbench.execute.interface import Outcome, Task
from cnnbench.execute.scheduler import Ended, Scheduler, Started, TrialEnded
from cnnbench.plan import Plan, PlannedTrial, Stage

KINDS = ("train", "compress", "evaluate", "latency")


class FakeExecutor:
    """Finishes tasks in an order that the test chooses, and holds the scheduler to the executor's contract."""

    def __init__(self, places: int, bad: dict[str, str], pick: Any = lambda tasks: 0) -> None:
        self.places = places
        self.bad = bad
        self.pick = pick
        self.running: list[Task] = []
        self.ran: list[str] = []
        self.together: list[set[str]] = []

    def submit(self, task: Task) -> None:
        assert len(self.running) < self.places
        assert task.key not in self.ran, "a stage ran twice"
        self.running.append(task)
        self.ran.append(task.key)
        self.together.append({t.key for t in self.running})

    def wait(self) -> list[Outcome]:
        task = self.running.pop(self.pick(self.running))
        if task.key not in self.bad:
            with filling(Path(task.folder)) as scratch:
                write_result(scratch, {"of": task.key})
        return [Outcome(task.key, self.bad.get(task.key, "ok"), "because", result={"of": task.key})]

    def close(self) -> None:
        pass


def make_plan(shapes: list[tuple[str, str | None, int]]) -> Plan:
    """A plan from (name of training, name of compression or None, seed) for each trial; equal names are one stage."""
    stages: dict[str, Stage] = {}
    trials = []
    for number, (train, compress, seed) in enumerate(shapes):
        model: tuple[str, ...] = (f"train:{train}:{seed}",)
        chain = [Stage(model[0], "train", {}, (), "")]
        if compress is not None:
            chain.append(Stage(f"compress:{train}:{compress}:{seed}", "compress", {}, model, ""))
            model = (*model, chain[-1].key)
        chain.append(Stage(f"evaluate:{model[-1]}", "evaluate", {}, model, ""))
        chain.append(Stage(f"latency:{model[-1]}", "latency", {}, model, ""))
        for stage in chain:
            stages.setdefault(stage.key, stage)
        trial: Any = SimpleNamespace(seed=seed, arm=SimpleNamespace(name=f"{train}/{compress}"))
        trials.append(PlannedTrial(trial, f"trial{number}", {s.kind: s.key for s in chain}))
    return Plan(tuple(trials), stages)


shapes = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([None, "x", "y"]), st.integers(0, 2)),
    min_size=1,
    max_size=12,
    unique=True,
)


@settings(max_examples=150, deadline=None)
@given(shapes, st.integers(1, 4), st.data())
def test_every_trial_ends_once_and_stages_respect_their_inputs(tmp_path_factory, shapes, places, data):
    plan = make_plan(shapes)
    keys = sorted(plan.stages)
    statuses = st.sampled_from(["failed", "diverged", "crashed"])
    bad = data.draw(st.dictionaries(st.sampled_from(keys), statuses, max_size=4))
    executor = FakeExecutor(places, bad, lambda tasks: data.draw(st.integers(0, len(tasks) - 1)))
    cache = StageCache(tmp_path_factory.mktemp("cache"))
    scheduler = Scheduler(plan, frozenset(), cache, executor)
    events = list(scheduler.run())

    ended = [event.planned.key for event in events if isinstance(event, TrialEnded)]
    assert sorted(ended) == sorted(trial.key for trial in plan.trials)
    known: set[str] = set()
    for event in events:
        if isinstance(event, Started):
            assert set(event.stage.inputs) <= known
            assert all(scheduler.outcomes[key].status == "ok" for key in event.stage.inputs)
            if event.stage.exclusive:
                parallel = {key for key in executor.ran if not plan.stages[key].exclusive}
                assert parallel <= known, "an exclusive stage started before the others had ended"
        elif isinstance(event, Ended):
            known.add(event.stage.key)
    for together in executor.together:
        assert len(together) == 1 or not any(plan.stages[key].exclusive for key in together)
    # Whatever no failed stage stands in the way of did run.
    for trial in plan.trials:
        chain = list(trial.stages.values())
        if not bad.keys() & set(chain):
            assert set(chain) <= known


def test_a_failure_costs_only_the_trials_that_need_the_stage(tmp_path):
    plan = make_plan([("a", None, 0), ("a", "x", 0), ("b", None, 0)])
    executor = FakeExecutor(2, {"compress:a:x:0": "failed"})
    scheduler = Scheduler(plan, frozenset(), StageCache(tmp_path), executor)
    list(scheduler.run())
    assert "evaluate:compress:a:x:0" not in executor.ran
    assert {"latency:train:a:0", "latency:train:b:0"} <= set(executor.ran)


def test_exclusive_stages_go_seed_by_seed_across_arms(tmp_path):
    plan = make_plan([(arm, None, seed) for arm in "ab" for seed in range(3)])
    executor = FakeExecutor(3, {})
    list(Scheduler(plan, frozenset(), StageCache(tmp_path), executor).run())
    latencies = [key for key in executor.ran if key.startswith("latency")]
    assert latencies == [f"latency:train:{arm}:{seed}" for seed in range(3) for arm in "ab"]


def test_what_is_on_disk_or_on_record_does_not_run(tmp_path):
    plan = make_plan([("a", None, 0), ("b", None, 0)])
    cache = StageCache(tmp_path)
    for key in plan.trials[0].stages.values():
        with filling(cache.folder(key)) as scratch:
            write_result(scratch, {"of": key})
    executor = FakeExecutor(1, {})
    scheduler = Scheduler(plan, frozenset({"trial1"}), cache, executor)
    events = list(scheduler.run())
    assert executor.ran == []
    assert [event.planned.key for event in events if isinstance(event, TrialEnded)] == ["trial0"]
    assert all(event.cached for event in events if isinstance(event, Ended))
    fresh = FakeExecutor(1, {})
    list(Scheduler(plan, frozenset(), cache, fresh, fresh=True).run())
    assert set(fresh.ran) == set(plan.stages)


def test_a_result_is_there_in_full_or_not_at_all(tmp_path):
    cache = StageCache(tmp_path)
    folder = cache.folder("ab12")

    def fill_and_fail() -> None:
        with filling(folder) as scratch:
            write_result(scratch, {"half": True})
            raise RuntimeError("killed in the middle")

    with pytest.raises(RuntimeError):
        fill_and_fail()
    assert cache.result("ab12") is None
    assert list(folder.parent.iterdir()) == []
    with filling(folder) as scratch:
        write_result(scratch, {"whole": True})
    assert cache.result("ab12") == {"whole": True}
    with filling(folder) as scratch:  # a second run that was slower leaves the first result alone
        write_result(scratch, {"late": True})
    assert cache.result("ab12") == {"whole": True}


def test_a_number_that_is_not_finite_is_no_result(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_result(tmp_path, {"loss": float("nan")})


def test_a_result_whose_files_are_gone_or_cut_off_is_none(tmp_path):
    cache = StageCache(tmp_path)
    folder = cache.folder("cd34")

    def fill():
        with filling(folder) as scratch:
            (scratch / "model.pt").write_bytes(b"weights")
            write_result(scratch, {"n": 1})

    fill()
    assert cache.result("cd34") == {"n": 1}
    (folder / "model.pt").write_bytes(b"we")
    assert cache.result("cd34") is None
    fill()  # replaces what is left
    assert cache.result("cd34") == {"n": 1}
    (folder / "model.pt").unlink()
    assert cache.result("cd34") is None


class Stutterer(FakeExecutor):
    """Says everything twice, as an executor may that lost a node just as it heard of an outcome."""

    def wait(self) -> list[Outcome]:
        if not self.running:
            return []
        said = super().wait()
        return [*said, *said]


def test_an_outcome_that_comes_twice_counts_once(tmp_path):
    plan = make_plan([("a", "x", 0), ("a", None, 0), ("b", None, 0)])
    executor = Stutterer(2, {"train:b:0": "crashed"})
    events = list(Scheduler(plan, frozenset(), StageCache(tmp_path), executor).run())
    assert sorted(e.planned.key for e in events if isinstance(e, TrialEnded)) == ["trial0", "trial1", "trial2"]
    ended = [e.stage.key for e in events if isinstance(e, Ended)]
    assert len(ended) == len(set(ended))


def test_what_the_same_run_has_made_is_not_made_anew(tmp_path):
    cache = StageCache(tmp_path)
    parts = [make_plan([("a", "x", 0)]), make_plan([("a", "x", 0), ("a", "y", 0)])]
    first = Scheduler(parts[0], frozenset(), cache, FakeExecutor(1, {}), fresh=True)
    list(first.run())
    executor = FakeExecutor(1, {})
    list(Scheduler(parts[1], frozenset(), cache, executor, fresh=True, made=first.outcomes).run())
    assert not set(executor.ran) & set(first.outcomes)
    assert set(executor.ran) | set(first.outcomes) == set(parts[1].stages)


class Thief(FakeExecutor):
    """Takes results out of the cache while a stage runs, once; a stage whose inputs are gone fails."""

    def __init__(self, places: int, cache: StageCache, during: str, *stolen: str) -> None:
        super().__init__(places, {})
        self.cache = cache
        self.during = during
        self.stolen = stolen

    def submit(self, task: Task) -> None:
        self.running.append(task)
        self.ran.append(task.key)

    def wait(self) -> list[Outcome]:
        if self.running[0].key == self.during and self.stolen:
            for key in self.stolen:
                self.cache.forget(key)
            self.stolen = ()
        task = self.running[0]
        whole = all((Path(folder) / "result.json").exists() for folder in task.inputs)
        self.bad = {} if whole else {task.key: "failed"}
        return super().wait()


@pytest.mark.parametrize(
    ("during", "stolen", "again"),
    [
        ("compress:a:x:0", ["train:a:0"], None),  # taken from under its hands
        ("train:b:0", ["train:a:0"], None),  # before, or while, others need it
        ("latency:train:a:0", ["train:a:0", "compress:a:x:0", "train:b:0"], None),  # all at the end
        ("train:b:0", ["evaluate:train:a:0"], []),  # what has been read already
    ],
)
@pytest.mark.parametrize("places", [1, 2])
def test_what_the_cache_loses_is_made_again_and_costs_no_trial(tmp_path, during, stolen, again, places):
    plan = make_plan([("a", None, 0), ("a", "x", 0), ("b", None, 0)])
    cache = StageCache(tmp_path)
    executor = Thief(places, cache, during, *stolen)
    scheduler = Scheduler(plan, frozenset(), cache, executor)
    events = list(scheduler.run())
    assert sorted(e.planned.key for e in events if isinstance(e, TrialEnded)) == ["trial0", "trial1", "trial2"]
    assert {outcome.status for outcome in scheduler.outcomes.values()} == {"ok"}
    twice = sorted(key for key in set(executor.ran) if executor.ran.count(key) > 1)
    assert again is None or twice == sorted(again)
    assert max(map(executor.ran.count, executor.ran)) <= 2


def test_a_stage_fails_whose_result_is_removed_again_and_again(tmp_path):
    plan = make_plan([("a", None, 0), ("b", None, 0)])
    executor = FakeExecutor(1, {})
    executor.submit = executor.running.append

    def wait() -> list[Outcome]:
        key = executor.running.pop().key
        lost = key == "train:a:0"
        if not lost:
            (tmp_path / key[:2] / key).mkdir(parents=True)
            write_result(tmp_path / key[:2] / key, {})
        return [Outcome(key, "failed" if lost else "ok", "removed", cache="removed" if lost else "")]

    executor.wait = wait
    scheduler = Scheduler(plan, frozenset(), StageCache(tmp_path), executor)
    ended = [event.planned.key for event in scheduler.run() if isinstance(event, TrialEnded)]
    assert ended == ["trial0", "trial1"]
    assert scheduler.outcomes["train:a:0"].status == "failed"
    assert scheduler.outcomes["train:b:0"].status == "ok"


def test_a_cache_that_takes_nothing_any_more_stops_the_run_in_one_line(tmp_path):
    plan = make_plan([("a", None, 0), ("b", None, 0)])
    executor = FakeExecutor(1, {})
    executor.wait = lambda: [Outcome(executor.running.pop().key, "failed", "the cache is full", cache="unusable")]
    with pytest.raises(StoreError, match=r"^the cache is full; finished work is kept, the same command goes on from"):
        list(Scheduler(plan, frozenset(), StageCache(tmp_path), executor).run())
