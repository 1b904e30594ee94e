"""Runs a suite from its plan to its records: the one place where planning, execution and storage meet."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench import time_budget
from cnnbench.adaptive import first_seeds, more_seeds, outcome, replayed, undecided
from cnnbench.drive import costs_of, drive
from cnnbench.errors import UsageError
from cnnbench.execute.cache import StageCache
from cnnbench.execute.room import SHARE, free_mib
from cnnbench.execute.scheduler import Scheduler
from cnnbench.failures import FINE
from cnnbench.here import default_workers, find_place
from cnnbench.ledger import Ledger
from cnnbench.local_plugins import COPIES
from cnnbench.options import make
from cnnbench.outlook import warnings_of
from cnnbench.plan import PlannedTrial, make_plan
from cnnbench.registry import nearest
from cnnbench.samples import write_benchmark_json
from cnnbench.store import Store
from cnnbench.superseded import superseded
from cnnbench.text import duration, listed
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from cnnbench.costs import Costs
    from cnnbench.execute.interface import TaskExecutor
    from cnnbench.execute.ray_cluster import RayCluster
    from cnnbench.keys import Place
    from cnnbench.plan import Plan, Stage
    from cnnbench.plugins import PluginHost
    from cnnbench.progress import Progress
    from cnnbench.suite import Suite

EXECUTORS = ("local", "inline", "ray")


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
        time_budget: seconds for the run, which leaves out what does not fit; None for no limit.
        address: of the cluster, for ``ray``; see ``execute.ray_cluster.join``.
    """

    results: Path
    cache: Path
    executor: str = "local"
    workers: int | None = None
    fresh: bool = False
    remeasure: bool = False
    only: tuple[str, ...] = ()
    looks: tuple[int, ...] = ()
    time_budget: float | None = None
    address: str | None = None


@dataclass(frozen=True)
class RunSummary:
    """How a run ended.

    Attributes:
        records: one for each planned trial, in the order of the table.
        statuses: how many trials ended in each status.
        seconds: wall time.
        left_out: trials that did not fit into the time budget.
    """

    records: tuple[dict[str, Any], ...]
    statuses: Mapping[str, int]
    seconds: float
    left_out: tuple[PlannedTrial, ...] = ()

    @property
    def clean(self) -> bool:
        """Every planned trial is ok, or was skipped for a stated reason."""
        return set(self.statuses) <= set(FINE)


def make_executor(
    options: RunOptions, place: Place, host: PluginHost, cluster: RayCluster | None, say: Callable[[str], None]
) -> TaskExecutor:
    """The executor that the options name.

    Args:
        options: how to run.
        place: where.
        host: plugins of this process.
        cluster: for ``ray``: the one that was joined.
        say: told what people should know.

    Raises:
        UsageError: unknown name, or a number of workers that it can't have.
    """
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers: expected at least 1, got {options.workers}")
    if options.executor == "inline":
        from cnnbench.execute.inline import InlineExecutor

        return InlineExecutor(host)
    if cluster is not None:
        from cnnbench.execute.ray_executor import RayExecutor

        return RayExecutor(cluster, host.registry, options.workers, say)
    if options.executor == "local":
        from cnnbench.execute.local import LocalExecutor

        bindings = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in place.gpus]
        return LocalExecutor(options.workers or default_workers(place), bindings, local=host.local)
    plugins = host.registry.names("executor")
    if options.executor not in plugins:
        hint = nearest(options.executor, [*EXECUTORS, *plugins])
        raise UsageError(f"--executor: unknown executor {options.executor!r}: {hint}")
    made: TaskExecutor = make(Choice("executor", options.executor), host.registry)(options.workers, host)
    return made


def run_suite(suite: Suite, host: PluginHost, options: RunOptions, progress: Progress) -> RunSummary:
    """Run what is not on disk yet, record every trial, and return all records of the plan.

    Raises:
        UsageError: the device, the data or a folder is not as the suite needs it; nothing has run.
    """
    with ExitStack() as stack:
        cluster = None
        if options.executor == "ray":
            from cnnbench.execute.ray_cluster import join

            cluster = stack.enter_context(closing(join(options.address, suite, host, progress.message)))
        return _run_at(suite, host, options, progress, cluster)


def _run_at(
    suite: Suite, host: PluginHost, options: RunOptions, progress: Progress, cluster: RayCluster | None
) -> RunSummary:
    """``run_suite`` on this machine, or on a cluster that was joined."""
    from cnnbench.environment import git_revision, manifest

    began = time.monotonic()
    place = cluster.place if cluster else find_place(suite.device, suite.measure.latency.threads)
    plan = make_plan(suite, host, place, options.only)
    store = Store(options.results, progress.message)
    cache = StageCache(options.cache)
    cache.prepare()
    with closing(make_executor(options, place, host, cluster, progress.message)) as executor, store.exclusive():
        folder = Path(suite.file).parent
        if cluster is None:
            environment = {**manifest(place.device, folder), **host.describe_environment()}
        else:  # hardware is the nodes'; the suite lies here
            revision = git_revision(folder)
            environment = {**cluster.environment, **({"revision": revision} if revision else {})}
            environment |= host.describe_environment()
        store.keep(Path(suite.file).name, suite.content)
        for name, content in suite.code.items():
            store.keep(f"{COPIES}/{name}", content)
        run = _Run(suite, host, options, progress, place, store, cache, executor, environment)
        records = run.all(plan, began)
        store.restore()
    write_benchmark_json(records, options.results)
    statuses = Counter(record["status"] for record in records)
    summary = RunSummary(records, dict(statuses), time.monotonic() - began, run.left_out)
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
    costs: Costs | None = None
    left_out: tuple[PlannedTrial, ...] = ()
    made: frozenset[str] = frozenset()
    """Stages that this run has ended well."""

    def all(self, plan: Plan, began: float) -> tuple[dict[str, Any], ...]:
        """Run a plan in the way that the options ask for.

        Args:
            plan: all that there may be to run.
            began: when the time budget began to run.
        """
        if self.options.looks:
            return self.adaptively(plan, began)
        return self.through(plan) if self.options.time_budget is None else self.within(plan, began)

    def through(
        self, plan: Plan, settled: Collection[str] = (), put_off: AbstractSet[str] = frozenset()
    ) -> tuple[dict[str, Any], ...]:
        """Run what is left of a plan.

        Args:
            plan: all of it, or a part.
            settled: keys of trials that this run has ended before.
            put_off: keys of trials that are planned but do not run now.
        """
        options, place, progress = self.options, self.place, self.progress
        ledger = self._ledger(plan)
        done = ledger.recall(fresh=options.fresh or options.remeasure, settled=settled)
        scheduler = Scheduler(
            plan,
            done.union(put_off),
            self.cache,
            self.executor,
            time_limit=self.suite.time_limit,
            fresh=options.fresh,
            remeasure=options.remeasure,
            made=self.made,
            room=free_mib() * SHARE if options.executor == "local" else None,
        )
        to_run = [t for t in plan.trials if t.skip is None and t.key not in done and t.key not in put_off]
        if not self.begun:
            self.begun = True
            self._tell(plan, len(done))
            if place.remark and to_run:
                progress.message(place.remark)
            for line in warnings_of(to_run):
                progress.message(f"warning: {line}")
            for line in self._of_records(plan, to_run):
                progress.message(line)
        drive(scheduler, to_run, ledger, self.host, progress, self.executor.places, self._costs(plan))
        self.ran += len(to_run)
        self.made |= {key for key, one in scheduler.outcomes.items() if one.status == "ok"}
        return ledger.records()

    def _of_records(self, plan: Plan, to_run: Collection[PlannedTrial]) -> Iterator[str]:
        """What to say of records before anything runs: those that no longer count, and those that need no stage."""
        if not to_run or self.options.fresh:
            return
        if told := superseded(plan, self.store.read().records, self.suite, self.place, self.environment):
            yield told
        stages = {key for t in to_run for key in t.stages.values()}
        if not self.options.remeasure and len(self.cache.among(stages)) == len(stages):
            count = len(to_run)
            yield f"all {len(stages)} stages are on disk; {count} record{'s' * (count != 1)} to enter"

    def within(self, plan: Plan, began: float) -> tuple[dict[str, Any], ...]:
        """Run as many whole seeds as fit into the time budget, and keep what is left out.

        Estimates are made again after each part of the run: what they had put off may fit after all.

        Args:
            plan: of all seeds.
            began: when the budget began to run.
        """
        options = self.options
        assert options.time_budget is not None
        settled: set[str] = set()
        records: tuple[dict[str, Any], ...] = ()
        while True:
            done = self._ledger(plan).recall(fresh=options.fresh or options.remeasure, settled=settled)
            cached = self._cached(plan.stages.values())
            room = options.time_budget - (time.monotonic() - began)
            found = time_budget.fit(
                plan, done, cached, self._costs(plan), self.executor.places, room, guess=bool(settled)
            )
            if settled and not found.fits(room):
                self.left_out = (*found.run, *found.left)
                return records
            if found.run or found.left:
                self.progress.message(time_budget.before(found, room))
            records = self.through(plan, settled, {t.key for t in found.left})
            settled |= {t.key for t in found.run}
            if not found.run:
                self.left_out = found.left
            if not found.run or not found.left:
                return records

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
            ahead = [t for t in plan.part(more).trials if t.skip is None and t.key not in settled]
            if options.time_budget is not None:
                spent = time.monotonic() - began
                cached = self._cached(plan.stages[key] for t in ahead for key in t.stages.values())
                needed = time_budget.needed(plan, ahead, cached, self._costs(plan), self.executor.places)
                if spent + needed > options.time_budget:
                    self.progress.message(
                        f"stopped by --time-budget after {duration(spent)}: {listed(undecided(records))} undecided, "
                        f"and the next seeds ({len(ahead)} trials) may take {duration(needed)}"
                    )
                    self.left_out = tuple(ahead)
                    return records
            self.progress.message(f"more seeds for {listed(undecided(records))}, as yet undecided: {len(ahead)} trials")
            seeds_of = more

    def _cached(self, stages: Iterable[Stage]) -> set[str]:
        """Keys of those that need not run, since their result is on disk."""

        def again(stage: Stage) -> bool:
            asked = self.options.fresh or (self.options.remeasure and stage.exclusive)
            return asked and stage.key not in self.made

        return self.cache.among(one.key for one in stages if not again(one))

    def _costs(self, plan: Plan) -> Costs:
        """What stages of this run take: known from earlier records at first, and learned as they end."""
        if self.costs is None:
            self.costs = costs_of(plan, self.store.read().records, self.environment)
        return self.costs

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
