"""Runs of MLflow, by its client: it holds no state of its own, so trials that run side by side do not mix."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.quiet import quiet
from cnnbench.table_formats import markdown

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
with quiet():
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnnbench.tables import Report
    from cnnbench_plugins.tracker._observer import Value

_LONGEST = 6000
"""Characters that a parameter's value may have."""
_MOST = 100
"""Parameters that may be sent at a time."""


class Experiment:
    """A run of the suite in an experiment of its name, with a run below it for each trial."""

    def __init__(self, run: Mapping[str, Any]) -> None:
        folder = Path(run["results"]).resolve()
        own = None if os.environ.get("MLFLOW_TRACKING_URI") else f"sqlite:///{folder / 'mlflow.db'}"
        if own:
            folder.mkdir(parents=True, exist_ok=True)
        with quiet("alembic", "mlflow"):  # it tells of each table that it makes
            self._client = MlflowClient(own)
            found = self._client.get_experiment_by_name(run["suite"])
            place = (folder / "mlflow-artifacts").as_uri() if own else None
            self._experiment = found.experiment_id if found else self._client.create_experiment(run["suite"], place)
            tags = {f"cnnbench.{name}": str(run[name]) for name in ("question", "sha256", "device")}
            self._run = self._start(run["suite"], tags)

    def open(self, name: str) -> Trial:
        """A run below the suite's."""
        return Trial(self._client, self._start(name, {"mlflow.parentRunId": self._run}))

    def table(self, report: Report) -> None:
        """The tables as a file of the suite's run."""
        self._client.log_text(self._run, markdown(report) + "\n", "table.md")

    def close(self, *, complete: bool) -> None:
        """End the suite's run."""
        self._client.set_terminated(self._run, "FINISHED" if complete else "KILLED")

    def _start(self, name: str, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(self._experiment, tags=dict(tags), run_name=name)
        return str(run.info.run_id)


class Trial:
    """The run of one trial."""

    def __init__(self, client: MlflowClient, run: str) -> None:
        self._client = client
        self._run = run

    def curve(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Metrics such as ``train/validation_accuracy``, with the epoch as the step."""
        self._metrics({f"{stage}/{name}": value for name, value in values.items()}, epoch)

    def finish(self, status: str, reason: str, params: Mapping[str, Value], metrics: Mapping[str, float]) -> None:
        """Settings as parameters, metrics by their recorded key, status and reason as tags."""
        given = [Param(name, str(value)[:_LONGEST]) for name, value in params.items()]
        for start in range(0, len(given), _MOST):
            self._client.log_batch(self._run, params=given[start : start + _MOST])
        self._metrics(metrics, 0)
        tags = [RunTag("cnnbench.status", status), RunTag("cnnbench.reason", reason)]
        self._client.log_batch(self._run, tags=[tag for tag in tags if tag.value])
        self._client.set_terminated(self._run, "FINISHED" if status in {"ok", "skipped"} else "FAILED")

    def abandon(self) -> None:
        """End the run as one that was stopped."""
        self._client.set_terminated(self._run, "KILLED")

    def _metrics(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(self._run, [Metric(name, value, now, step) for name, value in values.items()])
