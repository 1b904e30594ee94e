"""MLflow's database, read back by its client."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from cnnbench_plugins.tracker.mlflow import Mlflow

if importlib.util.find_spec("mlflow") is None or importlib.util.find_spec("sqlalchemy") is None:
    pytest.skip("needs mlflow and sqlalchemy", allow_module_level=True)


@pytest.fixture
def client(finished_run, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    observer = Mlflow()(finished_run.facts)
    finished_run.tell(observer)
    observer.close()
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{finished_run.facts['results']}/mlflow.db")


def test_the_run_is_read_back(client, finished_run, tmp_path, monkeypatch):
    experiment = client.get_experiment_by_name("tricks")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {
        "tricks",
        "baseline, seed 0, digits",
        "baseline, seed 1, digits",
        "50 % / ümlaut, seed 0, digits",
        "50 % / ümlaut, seed 1, digits",
    }
    parent = runs.pop("tricks")
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["cnnbench.question"] == "Which?"
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert not {run.data.tags.get("mlflow.user") for run in (parent, *runs.values())} - {None}

    live = runs["baseline, seed 0, digits"]
    curve = client.get_metric_history(live.info.run_id, "train/train_loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.5), (2, 0.25)]
    assert live.data.metrics["accuracy"] == 0.9
    assert live.data.metrics["compress/learning_rate"] == 0.05
    assert (live.data.params["recipe.optimizer"], live.data.params["recipe.optimizer.lr"]) == ("sgd", "0.05")
    assert (live.info.status, live.data.tags["cnnbench.status"]) == ("FINISHED", "ok")

    failed = runs["50 % / ümlaut, seed 1, digits"]
    assert (failed.info.status, failed.data.tags["cnnbench.status"]) == ("FAILED", "diverged")
    assert failed.data.tags["cnnbench.reason"] == "train: loss is nan in epoch 1"

    assert [one.path for one in client.list_artifacts(parent.info.run_id)] == ["table.md"]
    (table,) = (Path(finished_run.facts["results"]) / "mlflow-artifacts").rglob("table.md")
    assert "| baseline" in table.read_text(encoding="utf-8")

    # A second run of the suite joins its experiment; one that is broken off says so.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{finished_run.facts['results']}/mlflow.db")
    Mlflow()({**finished_run.facts, "results": str(tmp_path / "elsewhere")}).close()
    states = [
        run.info.status for run in client.search_runs([experiment.experiment_id]) if run.info.run_name == "tricks"
    ]
    assert sorted(states) == ["FINISHED", "KILLED"]
    assert not (tmp_path / "elsewhere").exists()
