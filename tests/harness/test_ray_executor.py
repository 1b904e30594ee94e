"""The executor for a Ray cluster against one that is made up: nodes that die at the worst time, datasets in turns."""

from __future__ import annotations

import shutil
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from cnnbench.execute import ray_executor
from cnnbench.execute.interface import Outcome, Task
from cnnbench.execute.ray_executor import DATASETS, TRIES, RayExecutor

if TYPE_CHECKING:
    from pathlib import Path


class FaultError(Exception):
    """The code of an actor raised."""


class LostError(Exception):
    """A node is gone."""


class Actor:
    """Answers what the test's script says, a list for each task: what it says in turn, errors among it."""

    def __init__(self, cluster: Cluster) -> None:
        self.ready = SimpleNamespace(remote=lambda: iter([None]))
        self.perform = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self.performed))
        self._cluster = cluster

    def performed(self, task: Task, inputs: Any, data: Any) -> Any:
        self._cluster.performed.append(task.key)
        return iter(self._cluster.script.pop(0))


class Cluster:
    """One node with one CPU; its replacement is there at once."""

    fault, lost = FaultError, LostError

    def __init__(self, *script: list[Any]) -> None:
        self.script = list(script)
        self.performed: list[str] = []
        self.place = SimpleNamespace(threads=1)
        self.device = "cpu"
        self.put_count = 0

    def nodes(self) -> list[Any]:
        return [SimpleNamespace(name="a", address="10.0.0.1", cpus=1.0, gpus=0.0)]

    def measures(self, node: Any) -> bool:
        return True

    def start(self, node: Any, cpus: float, gpus: float) -> Actor:
        return Actor(self)

    def kill(self, actor: Actor) -> None:
        pass

    def end(self, actors: Any, seconds: float) -> None:
        pass

    def put(self, value: Any) -> int:
        self.put_count += 1
        return self.put_count

    def get(self, reference: Any) -> None:
        next(reference)

    def wait(self, references: list[Any], seconds: float) -> list[Any]:
        return references

    def next(self, stream: Any) -> Any:
        said = next(stream, None)
        if isinstance(said, Exception):
            raise said
        return said


@pytest.fixture
def executor(monkeypatch):
    """Makes one over a cluster; datasets are their own names, and ``loaded`` counts them."""
    loaded: Counter[str] = Counter()
    monkeypatch.setattr(ray_executor, "make", lambda choice, registry: choice.name)
    monkeypatch.setattr(ray_executor, "load", lambda name: loaded.update([name]))
    monkeypatch.setattr(ray_executor, "arrays_of", lambda data: data)

    def made(cluster: Cluster) -> tuple[RayExecutor, list[str], Counter[str]]:
        said: list[str] = []
        registry: Any = None
        fake: Any = cluster
        return RayExecutor(fake, registry, None, said.append), said, loaded

    return made


def task(key: str, folder: Path, dataset: str = "d") -> Task:
    settings = {"dataset": {"slot": "dataset", "name": dataset, "options": {}}}
    return Task(key, {"kind": "train", "settings": settings}, (), str(folder / key))


def said(key: str, status: Any = "ok") -> list[Any]:
    return [SimpleNamespace(outcome=Outcome(key, status), files={"model.pt": b"x"})]


@pytest.mark.parametrize("error", [LostError("node"), FaultError("full disk")], ids=["node lost", "actor raised"])
def test_what_has_its_outcome_runs_no_second_time(executor, tmp_path, error):
    cluster = Cluster([said("a"), error], [said("a")])
    ray, _, _ = executor(cluster)
    ray.submit(task("a", tmp_path))
    assert [one.status for one in ray.wait()] == ["ok"]
    assert ray.wait() == []
    assert cluster.performed == ["a"]
    assert (tmp_path / "a/model.pt").read_bytes() == b"x"


def test_what_lost_its_node_runs_elsewhere_a_few_times(executor, tmp_path):
    cluster = Cluster([LostError("node")], [said("a")], *[[LostError("node")]] * TRIES)
    ray, told, _ = executor(cluster)
    ray.submit(task("a", tmp_path))
    assert [one.status for one in ray.wait()] == ["ok"]
    assert len(told) == 1
    ray.submit(task("b", tmp_path))
    (outcome,) = ray.wait()
    assert (outcome.key, outcome.status) == ("b", "crashed")
    assert cluster.performed == ["a", "a", *["b"] * TRIES]


def test_a_place_that_raises_costs_its_task(executor, tmp_path):
    ray, _, _ = executor(Cluster([FaultError("first\nOSError: disk full")]))
    ray.submit(task("a", tmp_path))
    (outcome,) = ray.wait()
    assert (outcome.status, outcome.reason) == ("failed", "on node 10.0.0.1: OSError: disk full")


def test_a_cache_that_is_removed_is_told_apart_from_a_stage_that_fails(executor, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_executor, "unpack", lambda files, folder: shutil.rmtree(folder))
    ray, _, _ = executor(Cluster([said("a")]))
    ray.submit(task("a", tmp_path / "train"))
    (outcome,) = ray.wait()
    assert (outcome.status, outcome.cache) == ("failed", "removed")


def test_datasets_in_turns_are_read_once_and_not_all_of_them_are_kept(executor, tmp_path):
    names = ["one", "two"] * 3 + [f"d{number}" for number in range(DATASETS)] + ["one"]
    keys = [f"k{number}" for number in range(len(names))]
    cluster = Cluster(*([said(key)] for key in keys))
    ray, _, loaded = executor(cluster)
    for key, name in zip(keys, names, strict=True):
        ray.submit(task(key, tmp_path, name))
        assert [one.status for one in ray.wait()] == ["ok"]
    assert loaded == {"one": 2, "two": 1, **{f"d{number}": 1 for number in range(DATASETS)}}
    assert cluster.performed == keys
