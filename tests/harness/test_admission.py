"""Memory for workers: what there is, who fits beside whom, and a second chance for what others starved."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.execute.admission import Admission
from cnnbench.execute.cache import StageCache
from cnnbench.execute.interface import Outcome, Task
from cnnbench.execute.room import MIB, SHARE, WORKER_MIB, fits, workers_for
from cnnbench.execute.scheduler import Scheduler, TrialEnded
from cnnbench.here import default_workers
from cnnbench.host_memory import free_bytes
from cnnbench.plan import Plan, PlannedTrial, Stage

if TYPE_CHECKING:
    from pathlib import Path

mib = st.floats(1, 1e5)


@given(mib, st.lists(mib, max_size=10), st.integers(0, 8), mib)
def test_what_fits_stays_within_the_room(need, running, idle, room):
    if fits(need, running, idle, room) and running:
        assert need + sum(running) + idle * WORKER_MIB <= room
        assert fits(need / 2, running, idle, room)
        assert fits(need, running[1:], idle, room)
        assert fits(need, running, idle, room * 2)


def test_idle_workers_and_what_every_worker_holds_count_too():
    assert fits(1000, [1000], 0, 2000)
    assert not fits(1000, [1000], 1, 2000)
    assert fits(1000, [1000], 1, 2000 + WORKER_MIB)
    assert not fits(1, [1], 0, 2 * WORKER_MIB - 1)


@given(mib, st.integers(0, 8), mib)
def test_alone_anything_may_run(need, idle, room):
    assert fits(need, [], idle, room)


@given(st.floats(0, 1e7))
def test_workers_have_room_and_there_is_always_one(free):
    count = workers_for(free)
    assert count == 1 or count * WORKER_MIB <= free * SHARE
    assert (count + 1) * WORKER_MIB > free * SHARE


def test_default_workers_mind_the_memory(monkeypatch):
    place: Any = SimpleNamespace(kind="cpu", gpus=(), threads=1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr("cnnbench.here.free_mib", lambda: 1e9)
    assert default_workers(place) == 64
    monkeypatch.setattr("cnnbench.here.free_mib", lambda: 5 * WORKER_MIB / SHARE + 1)
    assert default_workers(place) == 5


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Any:
    """Files of a system with 8 GiB available; called with those of its control groups."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8192 * MIB))

    def made(groups: str, **files: str) -> Path:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
        for name, text in files.items():
            file = tmp_path / "sys/fs/cgroup" / name.replace("__", "/").replace("_DOT_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return made


def test_without_limits_the_machine_counts(machine, tmp_path):
    assert free_bytes(tmp_path) == 8192 * MIB
    assert free_bytes(machine("0::/\n", memory_DOT_max="max\n")) == 8192 * MIB


def test_a_container_s_limit_counts_and_files_in_memory_do_not(machine):
    root = machine(
        "0::/\n",
        memory_DOT_max=f"{1024 * MIB}\n",
        memory_DOT_current=f"{600 * MIB}\n",
        memory_DOT_stat=f"anon 1\ninactive_file {100 * MIB}\n",
    )
    assert free_bytes(root) == (1024 - 600 + 100) * MIB


def test_the_tightest_limit_on_the_way_up_counts(machine):
    root = machine(
        "0::/slurm/job/step\n",
        slurm__memory_DOT_max=f"{4096 * MIB}",
        slurm__job__memory_DOT_max=f"{2048 * MIB}",
        slurm__job__memory_DOT_current=f"{48 * MIB}",
        slurm__job__step__memory_DOT_max="max",
    )
    assert free_bytes(root) == 2000 * MIB


@pytest.mark.parametrize("path", ["/docker/abc", "/"])
def test_version_1_within_a_container(machine, path):
    folder = "memory__memory_DOT"
    files = {
        f"{folder}_limit_in_bytes": f"{1024 * MIB}",
        f"{folder}_usage_in_bytes": f"{1000 * MIB}",
        f"{folder}_stat": f"total_inactive_file {76 * MIB}",
    }
    root = machine(f"9:name=systemd:/\n4:cpu,memory:{path}\n0::/\n", **files)
    assert free_bytes(root) == 100 * MIB


def test_version_1_writes_a_huge_number_for_no_limit(machine):
    root = machine("4:memory:/\n", memory__memory_DOT_limit_in_bytes="9223372036854771712\n")
    assert free_bytes(root) == 8192 * MIB


def test_an_arm_that_is_not_known_is_taken_for_the_largest_that_is():
    memory = Admission(1000)
    assert memory.need("a") is None
    memory.learn("a", 500)
    memory.learn("b", 700)
    assert (memory.need("a"), memory.need("b"), memory.need("c")) == (500, 700, 700)
    memory.learn("a", 400)
    assert memory.need("a") == 500, "what has been reached may be reached again"


class FakeExecutor:
    """Holds tasks until asked, and tells what ran beside what."""

    def __init__(self, places: int, needs: dict[str, float], starve: dict[str, int] | None = None) -> None:
        self.places, self.needs, self.starve = places, needs, starve or {}
        self.running: list[Task] = []
        self.history: list[tuple[str, ...]] = []
        self.known: set[str] = set()
        self.informed: set[str] = set()  # what started once every rehearsal had ended

    def submit(self, task: Task) -> None:
        self.running.append(task)
        if self.known == set(self.needs):
            self.informed.add(task.key)
        self.history.append(tuple(one.key for one in self.running))

    def wait(self) -> list[Outcome]:
        task = self.running.pop(0)
        kind, arm = task.key.split()[:2]
        if kind == "train" and self.starve.get(task.key, 0) > 0:
            self.starve[task.key] -= 1
            return [Outcome(task.key, "oom", "out of memory", result={"details": {"peak_mib": 10.0}})]
        self.known |= {arm} if kind == "rehearse" else set()
        return [Outcome(task.key, "ok", result={"peak_mib": self.needs[arm]} if kind == "rehearse" else {})]

    def close(self) -> None:
        pass


def make_plan(arms: list[str], seeds: int = 1) -> Plan:
    stages, trials = {}, []
    for arm in arms:
        for seed in range(seeds):
            task = {"settings": {"recipe": {"epochs": 1}, "techniques": {}}}
            chain = [Stage(f"rehearse {arm}", "rehearse", task, (), "")]
            chain += [Stage(f"{kind} {arm} {seed}", kind, task, (), "") for kind in ("train", "latency")]
            stages |= {stage.key: stage for stage in chain}
            trial: Any = SimpleNamespace(seed=seed, dataset="", arm=SimpleNamespace(name=arm))
            trials.append(PlannedTrial(trial, f"{arm} {seed}", {s.kind: s.key for s in chain}))
    return Plan(tuple(trials), stages)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(WORKER_MIB, 5000), min_size=1, max_size=6), st.integers(1, 5), st.integers(500, 10000))
def test_what_runs_together_fits_and_everything_runs(tmp_path_factory, sizes, places, room):
    needs = {f"arm{number}": float(size) for number, size in enumerate(sizes)}
    plan = make_plan(list(needs), 2)
    executor = FakeExecutor(places, needs)
    events = list(Scheduler(plan, frozenset(), StageCache(tmp_path_factory.mktemp("c")), executor, room=room).run())
    assert sum(isinstance(event, TrialEnded) for event in events) == len(plan.trials)
    for together in executor.history:
        if len(together) > 1 and executor.informed >= set(together):
            assert sum(needs[key.split()[1]] for key in together) <= room


def test_a_large_stage_waits_and_small_ones_go_on(tmp_path):
    needs = {"small": 400.0, "big": 2000.0}
    executor = FakeExecutor(3, needs)
    list(Scheduler(make_plan(list(needs), 6), frozenset(), StageCache(tmp_path), executor, room=2100).run())
    trainings = [set(group) for group in executor.history if set(group) <= executor.informed and "train" in group[0]]
    assert {"train small 3", "train small 4", "train small 5"} in trainings
    assert {"train big 5"} in trainings
    assert not any(len(group) > 1 and any("big" in key for key in group) for group in trainings)


def run(tmp_path: Path, starve: dict[str, int], places: int = 2) -> tuple[Scheduler, FakeExecutor]:
    executor = FakeExecutor(places, {"a": 300.0, "b": 300.0}, starve)
    scheduler = Scheduler(make_plan(["a", "b"], 2), frozenset(), StageCache(tmp_path), executor)
    list(scheduler.run())
    return scheduler, executor


def test_what_ran_out_of_memory_beside_others_runs_once_more_alone(tmp_path):
    scheduler, executor = run(tmp_path, {"train a 0": 1})
    assert scheduler.outcomes["train a 0"].status == "ok"
    assert executor.history.count(("train a 0",)) >= 1
    last = [group for group in executor.history if "train a 0" in group][-1]
    assert last == ("train a 0",)
    assert scheduler.outcomes["train a 0"].result["notes"] == [
        "train: ran out of memory beside other stages, and was run again alone"
    ]
    first_latency = next(i for i, group in enumerate(executor.history) if group[0].startswith("latency"))
    assert executor.history.index(("train a 0",)) < first_latency


def test_only_once(tmp_path):
    scheduler, executor = run(tmp_path, {"train a 0": 9})
    assert scheduler.outcomes["train a 0"].status == "oom"
    assert sum(group[-1] == "train a 0" for group in executor.history) == 2
    assert "run again alone" in scheduler.outcomes["train a 0"].result["notes"][0]


def test_what_ran_alone_had_its_chance(tmp_path):
    scheduler, executor = run(tmp_path, {"train a 0": 9}, places=1)
    assert scheduler.outcomes["train a 0"].status == "oom"
    assert sum("train a 0" in group for group in executor.history) == 1
