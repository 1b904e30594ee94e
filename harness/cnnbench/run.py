"""Runs a suite from its plan to its records: the one place where planning, execution and storage meet."""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.carbon import co2
from cnnbench.errors import UsageError
from cnnbench.execute.cache import StageCache
from cnnbench.execute.interface import Epoch
from cnnbench.execute.scheduler import Ended, Scheduler, Started, TrialEnded
from cnnbench.keys import Place
from cnnbench.options import make
from cnnbench.outlook import warnings_of
from cnnbench.plain import measure_plain, settings_plain
from cnnbench.plan import Plan, PlannedTrial, make_plan
from cnnbench.registry import nearest
from cnnbench.samples import write_benchmark_json
from cnnbench.store import Store
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cnnbench.execute.interface import Outcome, TaskExecutor
    from cnnbench.plugins import PluginHost
    from cnnbench.progress import Progress
    from cnnbench.suite import Suite
    from cnnbench.types import EnergyOptions

EXECUTORS = ("local", "inline")


@dataclass(frozen=True)
class RunOptions:
    """How to run, as far as the suite does not say.

    Attributes:
        results: folder for ``records.jsonl``.
        cache: folder for results of stages.
        executor: one of ``EXECUTORS``, or a plugin's.
        workers: worker processes; None lets the machine decide.
        fresh: run everything again, whatever is on disk.
        remeasure: measure latency and energy again, whatever is on disk.
        only: names of arms to run; the baseline always does. Empty means all.
    """

    results: Path
    cache: Path
    executor: str = "local"
    workers: int | None = None
    fresh: bool = False
    remeasure: bool = False
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunSummary:
    """How a run ended.

    Attributes:
        records: one for each planned trial, in the order of the table.
        statuses: how many trials ended in each status.
        seconds: wall time.
    """

    records: tuple[dict[str, Any], ...]
    statuses: Mapping[str, int]
    seconds: float

    @property
    def clean(self) -> bool:
        """Every planned trial is ok, or was skipped for a stated reason."""
        return set(self.statuses) <= {"ok", "skipped"}


def find_place(device: str, measured_threads: int | None = None) -> Place:
    """Where a run would take place.

    Args:
        device: as the suite names it.
        measured_threads: intra-op threads for latency, if the suite fixes them.

    Raises:
        UsageError: there is no such device here; names those that there are.
    """
    from cnnbench.devices import resolve, side_by_side, visible_as
    from cnnbench.environment import energy_source, machine_identity

    found = resolve(device)
    together, apart = side_by_side(device)
    others = ", ".join(f"{gpu} ({gpu.describe()})" for gpu in apart)
    machine = machine_identity(found)
    return Place(
        device=str(found),
        kind=found.kind,
        machine=machine if measured_threads is None else f"{machine}, {measured_threads} measured threads",
        energy=energy_source(found),
        gpus=tuple(map(visible_as, together)) if len(together) > 1 else (),
        remark=f"left out, since {found} is a {found.describe()}: {others}" if apart else "",
    )


def default_workers(place: Place) -> int:
    """Workers for a device: one a core on CPU, since each trains on one thread; one a GPU; one on anything else."""
    if place.kind != "cpu":
        return len(place.gpus) or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // place.threads)


def make_executor(options: RunOptions, place: Place, host: PluginHost) -> TaskExecutor:
    """The executor that the options name.

    Raises:
        UsageError: unknown name, or a number of workers that it can't have.
    """
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers: expected at least 1, got {options.workers}")
    if options.executor == "inline":
        from cnnbench.execute.inline import InlineExecutor

        return InlineExecutor(host)
    if options.executor == "local":
        from cnnbench.execute.local import LocalExecutor

        bindings = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in place.gpus]
        return LocalExecutor(options.workers or default_workers(place), bindings)
    plugins = host.registry.names("executor")
    if options.executor not in plugins:
        hint = nearest(options.executor, [*EXECUTORS, *plugins])
        raise UsageError(f"--executor: unknown executor {options.executor!r}: {hint}")
    made: TaskExecutor = make(Choice("executor", options.executor), host.registry)(options.workers)
    return made


def run_suite(suite: Suite, host: PluginHost, options: RunOptions, progress: Progress) -> RunSummary:
    """Run what is not on disk yet, record every trial, and return all records of the plan.

    Raises:
        UsageError: the device, the data or a folder is not as the suite needs it; nothing has run.
    """
    from cnnbench.environment import manifest

    began = time.monotonic()
    place = find_place(suite.device, suite.measure.latency.threads)
    plan = make_plan(suite, host, place, options.only)
    store = Store(options.results)
    cache = StageCache(options.cache)
    cache.prepare()
    with closing(make_executor(options, place, host)) as executor, store.exclusive():
        environment = {**manifest(place.device, Path(suite.file).parent), **host.describe_environment()}
        ledger = _Ledger(suite, plan, place, environment, store)
        done = ledger.recall(fresh=options.fresh or options.remeasure)
        scheduler = Scheduler(
            plan,
            done,
            cache,
            executor,
            time_limit=suite.time_limit,
            fresh=options.fresh,
            remeasure=options.remeasure,
        )
        host.plan_ready(
            {
                "suite": suite.name,
                "arms": len({t.trial.arm.name for t in plan.trials}),
                "trials": len(plan.trials),
                "stages": len(plan.stages),
                "cached": len(done),
                "workers": executor.places,
            }
        )
        to_run = [t for t in plan.trials if t.skip is None and t.key not in done]
        if place.remark and to_run:
            progress.message(place.remark)
        for line in warnings_of(to_run):
            progress.message(f"warning: {line}")
        _execute(scheduler, to_run, ledger, host, progress, executor.places)
    records = ledger.records()
    write_benchmark_json(records, options.results)
    statuses = Counter(record["status"] for record in records)
    summary = RunSummary(records, dict(statuses), time.monotonic() - began)
    host.run_finished(
        {
            "suite": suite.name,
            "planned": len(records),
            "statuses": dict(statuses),
            "seconds": summary.seconds,
            "results": str(options.results),
        }
    )
    return summary


def _execute(
    scheduler: Scheduler,
    to_run: Sequence[PlannedTrial],
    ledger: _Ledger,
    host: PluginHost,
    progress: Progress,
    workers: int,
) -> None:
    """Drive the scheduler to its end, recording trials and telling everyone who listens."""
    first = {key: t for t in reversed(to_run) for key in t.stages.values()}
    begun: set[str] = set()
    labels: dict[str, str] = {}
    progress.start(scheduler.pending(), workers)
    try:
        for event in scheduler.run():
            if isinstance(event, Started):
                trial = first[event.stage.key]
                if trial.key not in begun:
                    begun.add(trial.key)
                    host.trial_started(_brief(trial))
                labels[event.stage.key] = event.stage.label
                progress.stage_started(event.stage.label, event.stage.kind)
            elif isinstance(event, Epoch):
                host.epoch_finished(_brief(first[event.key]), event.progress)
                progress.stage_advanced(labels[event.key], event.progress["epoch"] + 1, event.progress["epochs"])
            elif isinstance(event, Ended):
                seconds = 0.0 if event.cached else event.outcome.seconds
                progress.stage_finished(event.stage.label, event.stage.kind, seconds, event.outcome.status)
            elif isinstance(event, TrialEnded):
                record = ledger.enter(event.planned, scheduler.outcomes)
                host.trial_finished(record)
                done, planned = ledger.count()
                progress.trial_finished(
                    record["arm"], record["seed"], record["status"], record["reason"], done, planned
                )
    finally:
        progress.finish()


def _brief(planned: PlannedTrial) -> dict[str, Any]:
    return {"key": planned.key, "arm": planned.trial.arm.name, "seed": planned.trial.seed}


class _Ledger:
    """The records of one run's plan: those recalled from disk and those entered as trials end."""

    def __init__(self, suite: Suite, plan: Plan, place: Place, environment: Mapping[str, str], store: Store) -> None:
        self._suite = suite
        self._plan = plan
        self._place = place
        self._environment = dict(environment)
        self._store = store
        self._records: dict[str, dict[str, Any]] = {}
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._planned = {
            "arms": list(dict.fromkeys(t.trial.arm.name for t in plan.trials)),
            "seeds": list(dict.fromkeys(t.trial.seed for t in plan.trials)),
        }

    def recall(self, *, fresh: bool) -> frozenset[str]:
        """Keys of trials that are ok on disk already: none if ``fresh``. Trials that are skipped are entered.

        What the present suite says of them (names, order, margins) may have changed while the trial itself has not:
        such a record is entered again under the present heading, so that the file's end always describes one run.
        """
        on_disk = {record["key"]: record for record in self._store.read().records}
        done: set[str] = set()
        for planned in self._plan.trials:
            record = on_disk.get(planned.key, {"status": None})
            heading = self._heading(planned)
            if planned.skip is not None:
                skipped = {"status": "skipped", "reason": planned.skip}
                if any(record.get(name) != value for name, value in {**heading, **skipped}.items()):
                    record = self._write(planned, skipped)
            elif record["status"] != "ok" or fresh:
                continue
            else:
                done.add(planned.key)
                if any(record.get(name) != value for name, value in heading.items()):
                    record = {**record, **heading, **_with_co2(record, self._suite.measure.energy)}
                    self._store.append(record)
            self._records[planned.key] = record
        return frozenset(done)

    def enter(self, planned: PlannedTrial, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
        """Record a trial from the outcomes of its stages."""
        known = [(kind, outcomes[key]) for kind, key in planned.stages.items() if key in outcomes]
        bad = next(((kind, outcome) for kind, outcome in known if outcome.status != "ok"), None)
        body: dict[str, Any] = {"status": "ok", "reason": None, "trace": None}
        if bad is not None:
            kind, outcome = bad
            body = {"status": outcome.status, "reason": f"{kind}: {outcome.reason}", "trace": outcome.trace}
        merged: dict[str, dict[str, Any]] = {"metrics": {}, "methods": {}, "details": {}}
        notes: list[str] = []
        for _, outcome in known:
            for part, values in merged.items():
                values.update(outcome.result.get(part, {}))
            notes += outcome.result.get("notes", [])
        notes += planned.advice
        if bad is not None:
            # What was measured before the fault is kept apart: a table must not show half a trial.
            merged = {
                "metrics": {},
                "methods": {},
                "details": {"partial": {"metrics": merged["metrics"], **merged["details"]}},
            }
        else:
            merged = _with_co2(merged, self._suite.measure.energy)
        merged["details"]["notes"] = list(dict.fromkeys(notes))
        seconds = {kind: outcome.result.get("seconds", outcome.seconds) for kind, outcome in known}
        return self._write(planned, {**body, **merged, "seconds": seconds})

    def count(self) -> tuple[int, int]:
        """Trials recorded, and planned."""
        return len(self._records), len(self._plan.trials)

    def records(self) -> tuple[dict[str, Any], ...]:
        """All records in the order of the plan."""
        return tuple(self._records[t.key] for t in self._plan.trials if t.key in self._records)

    def _heading(self, planned: PlannedTrial) -> dict[str, Any]:
        """What a record says of its suite and arm, all of it known before the trial runs."""
        suite, arm = self._suite, planned.trial.arm
        recipe = arm.settings.recipe
        return {
            "suite": {
                "name": suite.name,
                "question": suite.question,
                "sha256": suite.sha256,
                "file": Path(suite.file).name,
            },
            "arm": arm.name,
            "role": arm.role,
            "reference": arm.against or None,
            "changes": arm.changes,
            "planned": self._planned,
            "measure": measure_plain(suite.measure),
            "budget": f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)}, batch {recipe.batch_size}",
        }

    def _write(self, planned: PlannedTrial, body: Mapping[str, Any]) -> dict[str, Any]:
        record = {
            "schema": 1,
            "key": planned.key,
            **self._heading(planned),
            "seed": planned.trial.seed,
            "data": planned.data,
            "reason": None,
            "trace": None,
            "metrics": {},
            "methods": {},
            "details": {},
            "seconds": {},
            **body,
            "settings": settings_plain(planned.trial.arm.settings),
            "stages": dict(planned.stages),
            "device": self._place.device,
            "environment": self._environment,
            "started": self._started,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self._store.append(record)
        self._records[planned.key] = record
        return record


def _with_co2(body: Mapping[str, Any], energy: EnergyOptions) -> dict[str, dict[str, Any]]:
    """Metrics, methods and details of a trial with the CO2 of its energy on the suite's grid."""
    found = co2(body["metrics"], body["methods"], energy)
    details = {
        name: {**value, "intensity": found.intensity} if name in {"energy", "energy_train"} else value
        for name, value in body["details"].items()
    }
    return {
        "metrics": {**body["metrics"], **found.metrics},
        "methods": {**body["methods"], **found.methods},
        "details": details,
    }
