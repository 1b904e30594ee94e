"""Trackers in a run: chosen by name, told of it through the hooks, and never in its way."""

from __future__ import annotations

import importlib.util

import pytest

from cnnbench.cli import main
from cnnbench.plugins import PluginHost
from cnnbench.registry import Owner
from cnnbench.store import open_results

PLUGIN = '''
from cnnbench import hookimpl, technique

told = []

class Diary:
    def __init__(self, run):
        self.run = run
        told.append(("made", dict(run)))

    @hookimpl
    def cnnbench_epoch_finished(self, trial, progress):
        told.append(("epoch", trial["arm"], trial["seed"], trial["stage"], progress["epoch"]))

    @hookimpl
    def cnnbench_trial_finished(self, record):
        told.append(("trial", record["arm"], record["seed"], record["status"]))

    @hookimpl
    def cnnbench_run_finished(self, summary):
        told.append(("run", summary["results"]))

    def close(self):
        told.append(("closed",))


@technique("tracker", "diary")
class DiaryTracker:
    """Writes down what it is told."""

    def __call__(self, run):
        return Diary(run)


class Breaking(Diary):
    @hookimpl
    def cnnbench_trial_finished(self, record):
        raise RuntimeError("the server is gone")

    def close(self):
        raise RuntimeError("still gone")


@technique("tracker", "breaking")
class BreakingTracker:
    """Fails at every trial."""

    def __call__(self, run):
        return Breaking(run)


@technique("tracker", "unreachable")
class UnreachableTracker:
    """Can't be made."""

    def __call__(self, run):
        from cnnbench.errors import Unsupported

        raise Unsupported("no server at localhost:1")


@hookimpl
def cnnbench_register_techniques():
    return [DiaryTracker, BreakingTracker, UnreachableTracker]
'''


@pytest.fixture
def run(tmp_path, monkeypatch, install_plugin, tiny_suite):
    install_plugin("diaries", PLUGIN)
    monkeypatch.setenv("CNNBENCH_CACHE", str(tmp_path / "cache"))
    suite = tmp_path / "tiny.toml"
    suite.write_text(tiny_suite({"pruned": '{ compressor = "prune_magnitude" }'}, seeds=1))

    def start(*more: str) -> int:
        return main(["run", str(suite), "--results", str(tmp_path / "r"), "--executor", "inline", "--quiet", *more])

    start.results = tmp_path / "r"
    return start


def test_a_tracker_is_told_of_its_run_and_closed_with_it(run):
    assert run("--tracker", "diary", "--tracker", "diary") == 0
    import diaries

    first, *others = diaries.told
    facts = first[1]
    assert (facts["suite"], facts["question"], facts["device"]) == ("tiny", "Does it work?", "cpu")
    assert facts["results"] == str(run.results)
    assert len(facts["sha256"]) == 64
    assert others.count(("epoch", "baseline", 0, "train", 0)) == 1  # told once, though named twice
    assert {one[3] for one in others if one[0] == "epoch" and one[1] == "pruned"} == {"compress"}
    assert [one for one in others if one[0] == "trial"] == [
        ("trial", "baseline", 0, "ok"),
        ("trial", "pruned", 0, "ok"),
    ]
    assert others[-2:] == [("run", str(run.results)), ("closed",)]
    assert run("--fresh") == 0
    assert len(diaries.told) == 1 + len(others)


def test_one_that_fails_costs_a_warning_and_no_trial(run, capsys):
    assert run("--tracker", "breaking", "--tracker", "unreachable", "--tracker", "diary") == 0
    said = capsys.readouterr().err
    assert "plugin 'tracker breaking'" in said
    assert "cnnbench_trial_finished failed: RuntimeError: the server is gone (2 times)" in said
    assert "close failed: RuntimeError: still gone" in said
    assert "plugin 'tracker unreachable'" in said
    assert "can't observe this run: Unsupported: no server at localhost:1" in said
    assert [record["status"] for record in open_results(run.results).records] == ["ok", "ok"]
    import diaries

    assert diaries.told[-1] == ("closed",)


def test_an_unknown_tracker_names_the_nearest_and_nothing_runs(run, capsys):
    assert run("--tracker", "diry") == 2
    assert "--tracker: unknown tracker 'diry': did you mean 'diary'?" in capsys.readouterr().err
    assert not run.results.exists()


def test_one_that_is_not_installed_names_its_install_line(run, capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("cnnbench.tracking.find_spec", lambda name: None if name == "mlflow" else found(name))
    assert run("--tracker", "mlflow") == 2
    said = capsys.readouterr().err
    assert "--tracker: mlflow needs mlflow, which is not installed: pip install 'cnnbench[mlflow]'" in said
    assert not run.results.exists()


def test_an_observer_is_closed_where_the_run_is_broken_off():
    class Observer:
        closed = False

        def close(self):
            self.closed = True

    host, observer = PluginHost(), Observer()
    with pytest.raises(KeyboardInterrupt), host.observing(lambda: observer, Owner("tracker x", "x", "1")):
        raise KeyboardInterrupt
    assert observer.closed
    with host.observing(Observer, Owner("tracker x", "x", "1")):  # its name is free again
        pass
    assert host.problems == []


@pytest.mark.slow
def test_the_built_in_trackers_follow_a_real_run(run, capsys):
    for package in ("mlflow", "sqlalchemy", "tensorboard", "wandb"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    assert run("--tracker", "mlflow", "--tracker", "tensorboard", "--tracker", "wandb") == 0
    assert capsys.readouterr().err == ""
    from mlflow import MlflowClient
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    client = MlflowClient(f"sqlite:///{run.results}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    by_arm = {one.data.params["arm"]: one for one in runs if "arm" in one.data.params}
    (folder,) = (run.results / "tensorboard").glob("*/pruned_seed_0*")
    events = EventAccumulator(str(folder))
    events.Reload()
    for record in open_results(run.results).records:
        logged = by_arm[record["arm"]]
        assert logged.data.metrics["accuracy"] == record["metrics"]["accuracy"]
        curve = client.get_metric_history(logged.info.run_id, "train/train_loss")
        assert [one.value for one in curve] == [one["train_loss"] for one in record["details"]["history"]]
    assert events.Scalars("compress/train_loss")
    assert len(list((run.results / "wandb").glob("offline-run-*"))) == 3
