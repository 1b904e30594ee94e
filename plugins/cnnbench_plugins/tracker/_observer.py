"""What all trackers have in common: from a run's hooks to what a tracker's library is told of each trial."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cnnbench.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cnnbench.tables import Report

Value = str | int | float | bool


class Log(Protocol):
    """One trial, open in a tracker."""

    def curve(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Values after an epoch of a stage, counted from 1."""

    def finish(self, status: str, reason: str, params: Mapping[str, Value], metrics: Mapping[str, float]) -> None:
        """The trial's end: all that is known of it."""

    def abandon(self) -> None:
        """The run ended before the trial did."""


class Library(Protocol):
    """A tracker, told of one run of a suite."""

    def open(self, name: str) -> Log:
        """A trial, by a name that no other of the run has."""

    def table(self, report: Report) -> None:
        """The run's tables, at its end."""

    def close(self, *, complete: bool) -> None:
        """The last call; ``complete`` is False where the run was broken off."""


class Observer:
    """Tells a library of a run. Each trial is told of once, those that were on disk already at the run's end.

    Args:
        library: whom to tell.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._open: dict[str, Log] = {}
        self._ended: set[str] = set()
        self._epochs: Counter[tuple[str, str]] = Counter()
        self._complete = False

    @hookimpl
    def cnnbench_epoch_finished(self, trial: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
        """A point of each curve. A stage may train several times; its epochs are counted through."""
        stage = str(trial["stage"])
        self._epochs[trial["key"], stage] += 1
        self._log(trial).curve(stage, self._epochs[trial["key"], stage], _curve(progress))

    @hookimpl
    def cnnbench_trial_finished(self, record: Mapping[str, Any]) -> None:
        """The curve, unless it was told live (the training came from the cache, or is shared), and the end."""
        key = record["key"]
        log = self._log(record)
        if not self._epochs[key, "train"]:
            for epoch, progress in enumerate(_history(record), 1):
                log.curve("train", epoch, _curve(progress))
        log.finish(str(record["status"]), str(record["reason"] or ""), params_of(record), _numbers(record["metrics"]))
        del self._open[key]
        self._ended.add(key)

    @hookimpl
    def cnnbench_run_finished(self, summary: Mapping[str, Any]) -> None:
        """Trials that this run took from disk or skipped, and the table."""
        from cnnbench.frame import by_dataset
        from cnnbench.store import open_results
        from cnnbench.tables import make_report

        records = open_results(Path(summary["results"])).records
        for trials in by_dataset(records).values():
            for record in trials.records.values():
                if record["key"] not in self._ended:
                    self.cnnbench_trial_finished(record)
        self._library.table(make_report(records, Path(summary["results"])))
        self._complete = True

    def close(self) -> None:
        """End what is open, the run included."""
        for log in self._open.values():
            log.abandon()
        self._open.clear()
        self._library.close(complete=self._complete)

    def _log(self, trial: Mapping[str, Any]) -> Log:
        key = trial["key"]
        if key not in self._open:
            name = f"{trial['arm']}, seed {trial['seed']}"
            self._open[key] = self._library.open(f"{name}, {trial['dataset']}" if trial["dataset"] else name)
        return self._open[key]


def params_of(record: Mapping[str, Any]) -> dict[str, Value]:
    """What decided a trial, flat: ``recipe.optimizer`` is a name and ``recipe.optimizer.lr`` an option of it."""
    facts = {name: record[name] for name in ("dataset", "arm", "role", "changes", "seed", "device", "budget")}
    facts |= {"suite": record["suite"]["name"], "suite.sha256": record["suite"]["sha256"]}
    settings = dict(record["settings"])
    techniques = settings.pop("techniques")
    return {**facts, **dict(_flat({**settings, **techniques}))}


def _flat(value: object, prefix: str = "") -> Iterator[tuple[str, Value]]:
    if isinstance(value, dict) and value.keys() == {"slot", "name", "options"}:
        yield prefix, str(value["name"])
        yield from _flat(value["options"], prefix)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, f"{prefix}.{name}" if prefix else name)
    elif isinstance(value, list) and len(value) == 1:
        yield from _flat(value[0], prefix)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _flat(inner, f"{prefix}.{place}")
    elif isinstance(value, str | int | float | bool):
        yield prefix, value


def _history(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The learning curve that a record keeps; of a trial that did not end well, as far as it went."""
    details = record["details"]
    found: list[Mapping[str, Any]] = details.get("history") or details.get("partial", {}).get("history") or []
    return found


def _curve(progress: Mapping[str, Any]) -> dict[str, float]:
    return _numbers({name: value for name, value in progress.items() if name not in {"epoch", "epochs", "step"}})


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Values that are finite numbers; trackers differ on what becomes of others."""
    return {k: float(v) for k, v in values.items() if isinstance(v, int | float) and math.isfinite(v)}
