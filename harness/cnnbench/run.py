"""Runs a suite from its plan to its records: the one place where planning, execution and storage meet."""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.adaptive import first_seeds, more_seeds, outcome, replayed, undecided
from cnnbench.errors import UsageError
from cnnbench.execute.cache import StageCache
from cnnbench.execute.interface import Epoch
from cnnbench.execute.scheduler import Ended, Scheduler, Started, TrialEnded
from cnnbench.keys import Place
from cnnbench.ledger import Ledger
from cnnbench.options import make
from cnnbench.outlook import warnings_of
from cnnbench.plan import PlannedTrial, make_plan
from cnnbench.registry import nearest
from cnnbench.samples import write_benchmark_json
from cnnbench.store import Store
from cnnbench.text import duration, listed
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cnnbench.execute.interface import TaskExecutor
    from cnnbench.plan import Plan, Stage
    from cnnbench.plugins import PluginHost
    from cnnbench.progress import Progress
    from cnnbench.suite import Suite

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
        looks: numbers of seeds after which only undecided arms get more; empty where all arms have all seeds.
        budget: seconds that may pass before a look that adds seeds; None for no limit.
    """

    results: Path
    cache: Path
    executor: str = "local"
    workers: int | None = None
    fresh: bool = False
    remeasure: bool = False
    only: tuple[str, ...] = ()
    looks: tuple[int, ...] = ()
    budget: float | None = None


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
        store.keep(Path(suite.file).name, suite.content)
        run = _Run(suite, host, options, progress, place, store, cache, executor, environment)
        records = run.adaptively(plan, began) if options.looks else run.through(plan)
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


@dataclass
class _Run:
    """A suite's run, once all that it needs is there."""

    suite: Suite
    host: PluginHost
    options: RunOptions
    progress: Progress
    place: Place
    store: Store
    cache: StageCache
    executor: TaskExecutor
    environment: Mapping[str, str]
    ran: int = 0
    """Trials that this run has ended."""
    begun: bool = False

    def through(self, plan: Plan, settled: Collection[str] = ()) -> tuple[dict[str, Any], ...]:
        """Run what is left of a plan.

        Args:
            plan: all of it, or a part.
            settled: keys of trials that this run has ended before.
        """
        options, place, progress = self.options, self.place, self.progress
        ledger = self._ledger(plan)
        done = ledger.recall(fresh=options.fresh or options.remeasure, settled=settled)
        scheduler = Scheduler(
            plan,
            done,
            self.cache,
            self.executor,
            time_limit=self.suite.time_limit,
            fresh=options.fresh,
            remeasure=options.remeasure,
        )
        to_run = [t for t in plan.trials if t.skip is None and t.key not in done]
        if not self.begun:
            self.begun = True
            self._tell(plan, len(done))
            if place.remark and to_run:
                progress.message(place.remark)
            for line in warnings_of(to_run):
                progress.message(f"warning: {line}")
        _execute(scheduler, to_run, ledger, self.host, progress, self.executor.places)
        self.ran += len(to_run)
        return ledger.records()

    def adaptively(self, plan: Plan, began: float) -> tuple[dict[str, Any], ...]:
        """Run the plan look by look, with more seeds for undecided arms alone.

        What is on disk already is looked at first, so that a run that was stopped goes on at the look where it was.

        Args:
            plan: with all seeds that an arm may get.
            began: when the budget began to run.
        """
        options, looks = self.options, self.options.looks
        seeds_of = first_seeds(plan, looks)
        if not (options.fresh or options.remeasure):
            seeds_of, _ = replayed(plan, looks, lambda part: self._ledger(part).known())
        settled: set[str] = set()
        while True:
            records = self.through(plan.part(seeds_of), settled)
            more = more_seeds(records, plan, seeds_of, looks)
            if more == seeds_of:
                if self.ran:
                    self.progress.message(outcome(records, seeds_of, looks))
                return records
            settled = {record["key"] for record in records}
            ahead = sum(t.skip is None and t.key not in settled for t in plan.part(more).trials)
            if options.budget is not None:
                spent = time.monotonic() - began
                needed = spent / max(1, self.ran) * ahead
                if spent + needed > options.budget:
                    self.progress.message(
                        f"stopped by --budget after {duration(spent)}: {listed(undecided(records))} undecided, and the "
                        f"next seeds ({ahead} trials) may take {duration(needed)}"
                    )
                    return records
            self.progress.message(f"more seeds for {listed(undecided(records))}, as yet undecided: {ahead} trials")
            seeds_of = more

    def _ledger(self, plan: Plan) -> Ledger:
        return Ledger(self.suite, plan, self.place, self.environment, self.store, self.options.looks)

    def _tell(self, plan: Plan, cached: int) -> None:
        self.host.plan_ready(
            {
                "suite": self.suite.name,
                "arms": len({t.trial.arm.name for t in plan.trials}),
                "trials": len(plan.trials),
                "stages": len(plan.stages),
                "cached": cached,
                "workers": self.executor.places,
            }
        )


def _execute(
    scheduler: Scheduler,
    to_run: Sequence[PlannedTrial],
    ledger: Ledger,
    host: PluginHost,
    progress: Progress,
    workers: int,
) -> None:
    """Drive the scheduler to its end, recording trials and telling everyone who listens."""
    first = {key: t for t in reversed(to_run) for key in t.stages.values()}
    several = len({t.trial.dataset for t in to_run}) > 1
    begun: set[str] = set()
    stages: dict[str, Stage] = {}
    progress.start(scheduler.pending(), workers)
    try:
        for event in scheduler.run():
            if isinstance(event, Started):
                trial = first[event.stage.key]
                if trial.key not in begun:
                    begun.add(trial.key)
                    host.trial_started(_brief(trial))
                stages[event.stage.key] = event.stage
                progress.stage_started(event.stage.label, event.stage.kind)
            elif isinstance(event, Epoch):
                stage = stages[event.key]
                host.epoch_finished({**_brief(first[event.key]), "stage": stage.kind}, event.progress)
                progress.stage_advanced(stage.label, event.progress["epoch"] + 1, event.progress["epochs"])
            elif isinstance(event, Ended):
                seconds = 0.0 if event.cached else event.outcome.seconds
                progress.stage_finished(event.stage.label, event.stage.kind, seconds, event.outcome.status)
            elif isinstance(event, TrialEnded):
                record = ledger.enter(event.planned, scheduler.outcomes)
                host.trial_finished(record)
                done, planned = ledger.count()
                arm = f"{record['dataset']}, {record['arm']}" if several else record["arm"]
                progress.trial_finished(arm, record["seed"], record["status"], record["reason"], done, planned)
    finally:
        progress.finish()


def _brief(planned: PlannedTrial) -> dict[str, Any]:
    trial = planned.trial
    return {"key": planned.key, "dataset": trial.dataset, "arm": trial.arm.name, "seed": trial.seed}
