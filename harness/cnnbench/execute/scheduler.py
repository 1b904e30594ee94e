"""Runs a plan's stages in an order that respects their inputs, and tells of everything that happens.

Stages run in the order of the plan as their inputs come in; exclusive stages (latency, energy) wait until nothing else
is left and then run alone, seed by seed across the arms, so that drift of the machine falls on all arms alike.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnbench.execute.interface import Epoch, Outcome, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnnbench.execute.cache import StageCache
    from cnnbench.execute.interface import TaskExecutor
    from cnnbench.plan import Plan, PlannedTrial, Stage


@dataclass(frozen=True)
class Started:
    """A stage was handed to the executor."""

    stage: Stage


@dataclass(frozen=True)
class Ended:
    """A stage is done with; ``cached`` says that it was on disk and did not run.

    A stage that no open trial wants any more, because another of their stages failed, ends as ``skipped``.
    """

    stage: Stage
    outcome: Outcome
    cached: bool = False


@dataclass(frozen=True)
class TrialEnded:
    """Every stage of a trial has its outcome, or one of them failed."""

    planned: PlannedTrial


Event = Started | Epoch | Ended | TrialEnded


class Scheduler:
    """One run of one plan.

    Args:
        plan: what to run.
        done: keys of trials that are on record already: nothing of them runs.
        cache: where results of stages are kept.
        executor: where stages run.
        time_limit: seconds for each stage, or None.
        fresh: run every stage again even if its result is on disk.
    """

    def __init__(
        self,
        plan: Plan,
        done: frozenset[str],
        cache: StageCache,
        executor: TaskExecutor,
        *,
        time_limit: float | None = None,
        fresh: bool = False,
    ) -> None:
        self._plan = plan
        self._cache = cache
        self._executor = executor
        self._time_limit = time_limit
        self._fresh = fresh
        self.outcomes: dict[str, Outcome] = {}
        trials = [t for t in plan.trials if t.skip is None and t.key not in done]
        self._trials: dict[str, list[PlannedTrial]] = defaultdict(list)
        self._left: dict[str, int] = {}
        seeds: dict[str, int] = {}
        for trial in trials:
            self._left[trial.key] = len(trial.stages)
            for key in trial.stages.values():
                self._trials[key].append(trial)
                seeds.setdefault(key, trial.trial.seed)
        self._after: dict[str, list[str]] = defaultdict(list)
        self._missing: dict[str, int] = {}
        self._rank: dict[str, tuple[int, int]] = {}
        for position, (key, stage) in enumerate(plan.stages.items()):
            if key in self._trials:
                first = -1 if stage.kind == "rehearse" else 0  # what can't work is told before anything costs time
                self._rank[key] = (seeds[key] if stage.exclusive else first, position)
                self._missing[key] = len(stage.inputs)
                for source in stage.inputs:
                    self._after[source].append(key)
        self._parallel_left = sum(not plan.stages[key].exclusive for key in self._trials)
        self._ready: dict[bool, list[tuple[tuple[int, int], str]]] = {False: [], True: []}
        for key, missing in self._missing.items():
            if missing == 0:
                self._push(key)

    def pending(self) -> dict[str, int]:
        """Number of stages by kind before anything has run, those with a result on disk included."""
        return dict(Counter(self._plan.stages[key].kind for key in self._missing))

    def run(self) -> Iterator[Event]:
        """Run everything; events come as they happen."""
        running: dict[str, Stage] = {}
        while True:
            stage = self._next(bool(running)) if len(running) < self._executor.places else None
            if stage is None:
                if not running:
                    return
                for event in self._executor.wait():
                    if isinstance(event, Epoch):
                        yield event
                    else:
                        yield from self._end(running.pop(event.key), event)
            elif not self._trials[stage.key]:
                yield from self._end(stage, Outcome(stage.key, "skipped", "no trial needs it any more"))
            elif not self._fresh and (cached := self._cache.result(stage.key)) is not None:
                yield from self._end(stage, Outcome(stage.key, "ok", result=cached), cached=True)
            else:
                yield Started(stage)
                running[stage.key] = stage
                self._executor.submit(self._task(stage))

    def _push(self, key: str) -> None:
        heapq.heappush(self._ready[self._plan.stages[key].exclusive], (self._rank[key], key))

    def _next(self, others_run: bool) -> Stage | None:
        """The next stage that can start now, if any."""
        alone = self._parallel_left == 0
        ready = self._ready[alone]
        if not ready or (alone and others_run):
            return None
        return self._plan.stages[heapq.heappop(ready)[1]]

    def _task(self, stage: Stage) -> Task:
        if self._fresh:
            self._cache.forget(stage.key)
        inputs = tuple(str(self._cache.folder(key)) for key in stage.inputs)
        return Task(stage.key, stage.task, inputs, str(self._cache.folder(stage.key)), self._time_limit)

    def _end(self, stage: Stage, outcome: Outcome, *, cached: bool = False) -> Iterator[Event]:
        """Take in an outcome: stages become ready, trials close."""
        self.outcomes[stage.key] = outcome
        self._parallel_left -= not stage.exclusive
        yield Ended(stage, outcome, cached)
        for trial in list(self._trials[stage.key]):
            self._left[trial.key] -= 1
            if outcome.status != "ok" or self._left[trial.key] == 0:
                for key in trial.stages.values():
                    self._trials[key].remove(trial)
                yield TrialEnded(trial)
        self._release(stage.key)

    def _release(self, done: str) -> None:
        """Make ready what waited for ``done`` alone."""
        for key in self._after[done]:
            self._missing[key] -= 1
            if self._missing[key] == 0:
                self._push(key)
