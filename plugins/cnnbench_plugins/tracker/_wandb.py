"""Runs of Weights & Biases, as many at a time as there are trials."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.quiet import quiet

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # of wandb's own faults, to its makers
with quiet():
    import wandb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnnbench.tables import Report
    from cnnbench_plugins.tracker._observer import Value


class Group:
    """A group of runs: one for each trial, and one for the tables."""

    def __init__(self, run: Mapping[str, Any]) -> None:
        self._suite = str(run["suite"])
        self._name = f"{self._suite} {datetime.now(UTC).isoformat(timespec='seconds')}"
        self._facts = {name: str(run[name]) for name in ("suite", "question", "device")}
        self._folder = Path(os.environ.get("WANDB_DIR") or run["results"])
        self._folder.mkdir(parents=True, exist_ok=True)
        self._mode: Any = os.environ.get("WANDB_MODE") or "offline"
        self._settings = wandb.Settings(
            console="off",
            silent=True,
            host="-",  # the machine's name otherwise
            disable_code=True,
            disable_git=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=True,
        )

    def open(self, name: str) -> Run:
        """A run in the group."""
        return Run(self._start(name, "trial"))

    def table(self, report: Report) -> None:
        """A run with each sheet of the report as a table."""
        run = self._start("table", "table")
        for sheet in report.sheets:
            heads: list[Any] = [
                f"{column.label} [{column.unit}]" if column.unit else column.label for column in sheet.columns
            ]
            rows = zip(*([cell.text for cell in column.cells] for column in sheet.columns), strict=True)
            run.log({sheet.key: wandb.Table(columns=heads, data=[list(row) for row in rows])})
        run.finish()

    def close(self, *, complete: bool) -> None:
        """Each run is ended by itself."""

    def _start(self, name: str, kind: str) -> wandb.Run:
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "cnnbench",
            name=name,
            group=self._name,
            job_type=kind,
            config=self._facts,
            dir=str(self._folder),
            mode=self._mode,
            settings=self._settings,
            reinit="create_new",
        )


class Run:
    """The run of one trial."""

    def __init__(self, run: wandb.Run) -> None:
        self._run = run
        self._stages: set[str] = set()

    def curve(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Values such as ``train/validation_accuracy`` over ``train/epoch``."""
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/epoch")
        self._run.log({f"{stage}/epoch": epoch, **{f"{stage}/{name}": value for name, value in values.items()}})

    def finish(self, status: str, reason: str, params: Mapping[str, Value], metrics: Mapping[str, float]) -> None:
        """Settings into the config, metrics by their recorded key and the status into the summary."""
        self._run.config.update(dict(params), allow_val_change=True)
        self._run.summary.update({**metrics, "status": status, **({"reason": reason} if reason else {})})
        self._run.finish(exit_code=0 if status in {"ok", "skipped"} else 1)

    def abandon(self) -> None:
        """End the run as one that was stopped."""
        self._run.summary["status"] = "interrupted"
        self._run.finish(exit_code=1)
