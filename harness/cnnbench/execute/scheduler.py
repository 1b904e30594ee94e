"""Runs a plan's stages in an order that respects their inputs, and tells of everything that happens.

Stages run as their inputs come in, what trains longest first and else in the order of the plan; exclusive stages
(latency, energy) wait until nothing else is left and then run alone. Those of one session (all arms of a seed) go to
one worker together, which measures them in turns, so that drift of the machine falls on all arms alike. Trainings of
one session (the seeds of an arm whose recipe is stacked) go to one worker too, which trains them in one loop. A session
that loses its worker is taken apart: each of its stages runs again by itself, so that whoever brought it down costs
nobody else.

A stage starts beside others only where the memory that the rehearsals of their arms have reached fits into what there
is. One that ran out of memory beside others runs once more alone.

What the cache loses while the run goes on is made again when a stage needs it.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cnnbench.errors import StoreError
from cnnbench.execute.admission import Admission
from cnnbench.execute.interface import Epoch, Outcome, Placed, Task
from cnnbench.execute.order import place_in_line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence, Set

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


Event = Started | Placed | Epoch | Ended | TrialEnded
Rank = tuple[int, int, int]


LOOK_AHEAD = 100
"""How many ready stages are looked at for one that fits beside those that run."""
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
        made: stages that the same run has ended well before, in another part of it: neither of the two is for them.
        room: MiB of memory for all stages that run at once; None where that is not the scheduler's business.
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
        made: Collection[str] = (),
        room: float | None = None,
    ) -> None:
        self._plan = plan
        self._cache = cache
        self._executor = executor
        self._time_limit = time_limit
        self._fresh = fresh
        self._remeasure = remeasure
        self._made = frozenset(made)
        self._memory = Admission(room)
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
        self._rank: dict[str, Rank] = {}
        for position, (key, stage) in enumerate(plan.stages.items()):
            if key in self._trials:
                self._rank[key] = (*place_in_line(stage, seeds[key]), position)
                self._missing[key] = len(stage.inputs)
                for source in stage.inputs:
                    self._after[source].append(key)
        self._returning: set[str] = set()  # stages that run again because the cache has lost their results
        self._robbed: set[str] = set()  # stages that failed because of such a loss, and have run once more
        self._apart: set[str] = set()  # stages whose session was lost: each runs by itself now
        self._parallel_left = sum(not plan.stages[key].exclusive for key in self._trials)
        # Those that may start, in line; an entry of one that has started meanwhile, beside others, says nothing.
        self._ready: dict[bool, list[tuple[Rank, str]]] = {False: [], True: []}
        self._waiting: set[str] = set()
        self._of_session: dict[str, set[str]] = defaultdict(set)
        for key, missing in self._missing.items():
            if missing == 0:
                self._push(key)

    def pending(self) -> list[Stage]:
        """All stages before anything has run, those with a result on disk included, in the order of the plan."""
        return [self._plan.stages[key] for key in self._missing]

    def run(self) -> Iterator[Event]:
        """Run everything; events come as they happen.

        Raises:
            StoreError: the cache takes no results any more.
        """
        running: dict[str, Stage] = {}
        together: set[str] = set()  # the stages that run in sessions of several
        while True:
            stage = self._next(bool(running)) if self._memory.tasks < self._executor.places else None
            if stage is None:
                if not running:
                    return
                for event in self._executor.wait():
                    if isinstance(event, Epoch | Placed):
                        yield event
                        continue
                    if (ended := running.pop(event.key, None)) is not None:  # an executor may tell of one twice
                        yield from self._take_in(ended, event, together)
            elif not self._trials[stage.key]:
                yield from self._end(stage, Outcome(stage.key, "skipped", "no trial needs it any more"))
            elif not self._again(stage) and (cached := self._cache.result(stage.key)) is not None:
                yield from self._end(stage, Outcome(stage.key, "ok", result=cached), cached=True)
            elif not self._bring_back(stage):
                members = [stage, *self._beside(stage)]
                together.difference_update(member.key for member in members)
                together.update(member.key for member in members if len(members) > 1)
                for member in members:
                    yield Started(member)
                    running[member.key] = member
                own = [member.key for member in members]
                self._memory.enter(own, map(self._rehearsal, own), running)
                self._executor.submit(self._task(stage, members[1:]))

    def _take_in(self, stage: Stage, outcome: Outcome, together: Set[str]) -> Iterator[Event]:
        """What ran is either done with, or has one more chance where it may not be to blame."""
        self._memory.leave(stage.key)
        if self._memory.starved(outcome, self._rehearsal(stage.key)):
            return
        if self._was_robbed(stage, outcome):
            if not self._bring_back(stage):
                self._push(stage.key)
        elif outcome.status in _LOST and stage.key in together:
            self._apart.add(stage.key)
            self._push(stage.key)
        else:
            yield from self._end(stage, outcome)

    def _push(self, key: str) -> None:
        stage = self._plan.stages[key]
        self._waiting.add(key)
        if stage.session:
            self._of_session[stage.session].add(key)
        heapq.heappush(self._ready[stage.exclusive], (self._rank[key], key))

    def _take(self, stage: Stage) -> None:
        """It waits no longer."""
        self._waiting.discard(stage.key)
        self._of_session[stage.session].discard(stage.key)

    def _next(self, others_run: bool) -> Stage | None:
        """The next stage that can start now, if any."""
        alone = self._parallel_left == 0
        ready = self._ready[alone]
        if alone and others_run:
            return None
        passed: list[tuple[Rank, str]] = []
        found: Stage | None = None
        while ready and found is None and len(passed) < LOOK_AHEAD:
            entry = heapq.heappop(ready)
            if entry[1] not in self._waiting:
                continue
            if alone or not self._trials[entry[1]] or self._memory.admits(self._rehearsal(entry[1])):
                found = self._plan.stages[entry[1]]
            else:
                passed.append(entry)
        for entry in passed:
            heapq.heappush(ready, entry)
        if found is not None:
            self._take(found)
        if found is None and not others_run and self._memory.waiting:
            found = self._plan.stages[self._memory.waiting.pop(0)]
        return found

    def _rehearsal(self, key: str) -> str:
        """Key of the rehearsal that tells of a stage's memory; empty where no trial needs the stage any more."""
        trials = self._trials[key]
        return trials[0].stages.get("rehearse", "") if trials else ""

    def _again(self, stage: Stage) -> bool:
        """Whether it runs even if its result is on disk."""
        return stage.key not in self._made and (self._fresh or (self._remeasure and stage.exclusive))

    def _beside(self, stage: Stage) -> list[Stage]:
        """Take the other stages of its session that are due: wanted, and without a result on disk."""
        if not stage.session or stage.key in self._apart or stage.key in self._memory.again:
            return []
        found = []
        for key in sorted(self._of_session[stage.session], key=self._rank.__getitem__):
            other = self._plan.stages[key]
            due = self._trials[key] and key not in self._apart
            if due and (self._again(other) or self._cache.result(key) is None) and not self._gone(other):
                found.append(other)
        if not stage.exclusive:
            others = {key for _, key in self._ready[False] if key in self._waiting} - {other.key for other in found}
            found = found[: self._seeds_together(1 + len(found), others) - 1]
        for other in found:
            self._take(other)
        return found

    def _seeds_together(self, seeds: int, others: set[str]) -> int:
        """How many of an arm's seeds go to one worker, so that no place is idle for want of others' work.

        Args:
            seeds: those of the arm that are due.
            others: keys of whatever else is ready.
        """
        free = self._executor.places - self._memory.tasks
        groups = 1 + len({self._plan.stages[key].session or key for key in others})
        return -(-seeds // max(1, free // groups))

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
        # What may run beside it, anywhere and on its own device, tells what its cost is worth.
        on_device = getattr(self._executor, "per_device", 1)
        spec = {**stage.task, "workers": self._executor.places, "on_device": on_device}
        if stage.kind == "train" and stage.key in self._apart:
            spec["apart"] = "the worker that trained all seeds together was lost"
        return Task(stage.key, spec, inputs, folder, self._time_limit, own_process=stage.own_process)

    def _end(self, stage: Stage, outcome: Outcome, *, cached: bool = False) -> Iterator[Event]:
        """Take in an outcome: stages become ready, trials close."""
        if stage.key in self._memory.again:
            note = f"{stage.kind}: ran out of memory beside other stages, and was run again alone"
            outcome = replace(outcome, result={**outcome.result, "notes": [note, *outcome.result.get("notes", ())]})
        if stage.kind == "rehearse" and (reached := outcome.result.get("peak_mib")) is not None:
            self._memory.learn(stage.key, reached)
        self.outcomes[stage.key] = outcome
        self._returning.discard(stage.key)
        self._parallel_left -= not stage.exclusive
        yield Ended(stage, outcome, cached)
        for trial in list(self._trials[stage.key]):
            self._left[trial.key] -= 1
            if outcome.status != "ok" or self._left[trial.key] == 0:
                for key in trial.stages.values():
                    self._trials[key].remove(trial)
                yield TrialEnded(trial)
        self._release(stage.key)

    def _gone(self, stage: Stage) -> list[str]:
        """What a stage starts from and the cache has lost since it ran."""
        return [key for key in stage.inputs if self._cache.result(key) is None]

    def _bring_back(self, stage: Stage) -> bool:
        """Have what a stage starts from run again where the cache has lost it; the stage then waits for that."""
        gone = self._gone(stage)
        for key in gone:
            if key not in self._returning:
                self._returning.add(key)
                self._parallel_left += not self._plan.stages[key].exclusive
                for trial in self._trials[key]:
                    self._left[trial.key] += 1
                for after in self._after[key]:
                    self._missing[after] += self._missing[after] > 0  # it waits for others, and now for this again
                self._push(key)
        self._missing[stage.key] = len(gone)
        return bool(gone)

    def _was_robbed(self, stage: Stage, outcome: Outcome) -> bool:
        """Whether a stage failed because something was removed from the cache: it has one more chance.

        Raises:
            StoreError: the cache takes no results any more: all that still runs would be lost.
        """
        if outcome.cache == "unusable":
            raise StoreError(f"{outcome.reason}; finished work is kept, the same command goes on from here")
        if outcome.status == "ok" or stage.key in self._robbed or not (outcome.cache or self._gone(stage)):
            return False
        self._robbed.add(stage.key)
        return True

    def _release(self, done: str) -> None:
        """Make ready what waited for ``done`` alone."""
        for key in self._after[done]:
            self._missing[key] -= 1
            if self._missing[key] == 0:
                self._push(key)
