"""Runs a plan's stages in an order that respects their inputs, and tells of everything that happens.

Stages run in the order of the plan as their inputs come in; exclusive stages (latency, energy) wait until nothing else
is left and then run alone. Those of one session (all arms of a seed) go to one worker together, which measures them in
turns, so that drift of the machine falls on all arms alike. A session that loses its worker is taken apart: each of its
stages runs again by itself, so that whoever brought it down costs nobody else.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cnnbench.execute.interface import Epoch, Outcome, Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


_LOST = ("crashed", "timeout", "oom")
"""How a session ends that lost its worker: nobody knows yet through whom."""


class Scheduler:
    """One run of one plan.

    Args:
        plan: what to run.
        done: keys of trials that are on record already: nothing of them runs.
        cache: where results of stages are kept.
        executor: where stages run.
        time_limit: seconds for each stage, or None.
        fresh: run every stage again even if its result is on disk.
        remeasure: run exclusive stages again even so.
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
        remeasure: bool = False,
    ) -> None:
        self._plan = plan
        self._cache = cache
        self._executor = executor
        self._time_limit = time_limit
        self._fresh = fresh
        self._remeasure = remeasure
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
        self._apart: set[str] = set()  # stages whose session was lost: each runs by itself now
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
        together: set[str] = set()  # the stages of the session that runs, if it has several
        while True:
            stage = self._next(bool(running)) if len(running) < self._executor.places else None
            if stage is None:
                if not running:
                    return
                for event in self._executor.wait():
                    if isinstance(event, Epoch):
                        yield event
                        continue
                    ended = running.pop(event.key)
                    if event.status in _LOST and ended.key in together:
                        self._apart.add(ended.key)
                        self._push(ended.key)
                    else:
                        yield from self._end(ended, event)
            elif not self._trials[stage.key]:
                yield from self._end(stage, Outcome(stage.key, "skipped", "no trial needs it any more"))
            elif not self._again(stage) and (cached := self._cache.result(stage.key)) is not None:
                yield from self._end(stage, Outcome(stage.key, "ok", result=cached), cached=True)
            else:
                members = [stage, *self._beside(stage)]
                together = {member.key for member in members} if len(members) > 1 else set()
                for member in members:
                    yield Started(member)
                    running[member.key] = member
                self._executor.submit(self._task(stage, members[1:]))

    def _push(self, key: str) -> None:
        heapq.heappush(self._ready[self._plan.stages[key].exclusive], (self._rank[key], key))

    def _next(self, others_run: bool) -> Stage | None:
        """The next stage that can start now, if any."""
        alone = self._parallel_left == 0
        ready = self._ready[alone]
        if not ready or (alone and others_run):
            return None
        return self._plan.stages[heapq.heappop(ready)[1]]

    def _again(self, stage: Stage) -> bool:
        """Whether it runs even if its result is on disk."""
        return self._fresh or (self._remeasure and stage.exclusive)

    def _beside(self, stage: Stage) -> list[Stage]:
        """Take the other stages of its session that are due: wanted, and without a result on disk."""
        if not stage.session or stage.key in self._apart:
            return []
        waiting, found = [], []
        for rank, key in self._ready[True]:
            other = self._plan.stages[key]
            due = other.session == stage.session and self._trials[key] and key not in self._apart
            if due and (self._again(other) or self._cache.result(key) is None):
                found.append((rank, other))
            else:
                waiting.append((rank, key))
        heapq.heapify(waiting)
        self._ready[True] = waiting
        return [other for _, other in sorted(found, key=lambda pair: pair[0])]

    def _task(self, stage: Stage, beside: Sequence[Stage]) -> Task:
        """The task of a stage with those beside it, and with the models that these are compared with."""
        members = [stage, *beside]
        for member in filter(self._again, members):
            self._cache.forget(member.key)
        keys = {member.key for member in members}
        references = dict.fromkeys(m.reference for m in members if m.reference and m.reference not in keys)
        tasks = [self._own_task(member) for member in members]
        for key in references:
            reference = self._plan.stages.get(key)
            # Its model may be gone from the cache, or never have come about: then there is no pairing with it.
            if reference is not None and all(self._cache.result(source) is not None for source in reference.inputs):
                tasks.append(replace(self._own_task(reference), folder=""))
        limit = None if self._time_limit is None else self._time_limit * len(tasks)
        return replace(tasks[0], beside=tuple(tasks[1:]), time_limit=limit)

    def _own_task(self, stage: Stage) -> Task:
        inputs = tuple(str(self._cache.folder(key)) for key in stage.inputs)
        folder = str(self._cache.folder(stage.key))
        spec = {**stage.task, "workers": self._executor.places}  # what may run beside it tells what its cost is worth
        return Task(stage.key, spec, inputs, folder, self._time_limit, own_process=stage.own_process)

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
