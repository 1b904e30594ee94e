"""Perform a task in this process and say what became of it. All executors end here."""

from __future__ import annotations

import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cnnbench.errors import CnnbenchError, Diverged, OutOfMemory, Unsupported, words_of
from cnnbench.execute.cache import Barred, CacheError, filling, likely_cause, write_result
from cnnbench.execute.guard import Findings, Guard, Spoiled
from cnnbench.execute.interface import Outcome, Status, Task
from cnnbench.stages.bench import MODEL
from cnnbench.stages.memory import ran_out
from cnnbench.stages.session import TOGETHER, Member
from cnnbench.text import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cnnbench.stages.bench import Bench


_TORCH = Path(torch.__file__).parent
_MOST_REASON = 2000
_MOST_TRACE = 32 * 1024
"""Characters: a technique may raise with the whole of a tensor, or of a file, as its text."""


def perform(
    task: Task,
    bench: Bench,
    tell: Callable[..., None],
    faults: tuple[type[BaseException], ...] = (Exception, SystemExit),
    guard: Guard | None = None,
) -> list[Outcome]:
    """Run a stage, or several that are measured together, and keep the results.

    Args:
        task: what to do.
        bench: this process's data, device and meters.
        tell: called with the progress of each epoch, and with the stage's key after it where stages are trained
            together.
        faults: what costs the task alone; anything else that is raised goes through.
        guard: this process's; where it is spoiled afterwards, the process must take no further task.
    """
    guard = guard or Guard()
    if task.spec["kind"] in TOGETHER:
        return _together(task, bench, faults, guard)
    if task.beside:
        return _trained_together(task, bench, tell, faults, guard)
    began, left = time.perf_counter(), Findings()
    try:
        with filling(Path(task.folder)) as scratch:
            with guard.around(task.spec) as left:
                result = bench.run(task.spec, [Path(path) for path in task.inputs], scratch, tell)
            result = write_result(scratch, left.noted(result))
    except faults as error:  # a technique is another's code: anything may come out
        return [lost(task, error, time.perf_counter() - began, left.spoiled)]
    return [Outcome(task.key, "ok", result=result, seconds=time.perf_counter() - began)]


def _together(task: Task, bench: Bench, faults: tuple[type[BaseException], ...], guard: Guard) -> list[Outcome]:
    """Measure a task and those beside it; what one of them does wrong costs itself alone."""
    began, left = time.perf_counter(), Findings()
    recorded = [one for one in task.members if one.folder]
    members = [Member(one.key, one.spec, Path(one.inputs[-1]) / MODEL) for one in task.members]
    try:
        with guard.around(task.spec) as left:
            found = bench.measure(members, faults)
    except faults as error:
        seconds = (time.perf_counter() - began) / len(recorded)
        return [lost(one, error, seconds, left.spoiled) for one in recorded]
    seconds = (time.perf_counter() - began) / len(recorded)  # they took turns: each is charged its share
    if left.spoiled is not None and len(recorded) > 1:  # by whom is not known: each is to be measured by itself
        return [Outcome(one.key, "crashed", left.spoiled, seconds=seconds) for one in recorded]
    outcomes = []
    for one in recorded:
        result = found[one.key]
        if isinstance(result, BaseException):
            outcomes.append(lost(one, result, seconds, left.spoiled))
            continue
        try:
            result = left.noted(result) if len(recorded) == 1 else result
            with filling(Path(one.folder)) as scratch:
                plain = write_result(scratch, {"notes": [], **result, "seconds": seconds})
        except faults as error:
            outcomes.append(lost(one, error, seconds))
        else:
            outcomes.append(Outcome(one.key, "ok", result=plain, seconds=seconds))
    return outcomes


def _trained_together(
    task: Task, bench: Bench, tell: Callable[..., None], faults: tuple[type[BaseException], ...], guard: Guard
) -> list[Outcome]:
    """Train the seeds of one arm in one loop; those for which that can't be done train here by themselves."""

    def teller(key: str) -> Callable[[Mapping[str, Any]], None]:
        return lambda progress: tell(progress, key)

    with guard.around(task.spec) as left:
        trained = bench.train_together({one.key: (one.spec, teller(one.key)) for one in task.members}, faults)
    if left.spoiled is not None:  # by which seed is not known: each is to be trained by itself
        return [Outcome(one.key, "crashed", left.spoiled) for one in task.members]
    outcomes = []
    for one in task.members:
        keep = trained.pop(one.key)
        if isinstance(keep, str):
            alone = replace(one, spec={**one.spec, "apart": keep}, beside=())
            outcomes += perform(alone, bench, teller(one.key), faults, guard)
            continue
        try:
            with filling(Path(one.folder)) as scratch:
                result = write_result(scratch, left.noted(keep(scratch)))
        except faults as error:
            outcomes.append(lost(one, error, 0.0))
        else:
            outcomes.append(Outcome(one.key, "ok", result=result, seconds=result["seconds"]))
    return outcomes


def lost(task: Task, error: BaseException, seconds: float, spoiled: str | None = None) -> Outcome:
    """The outcome of a task that raised.

    Args:
        task: the one.
        error: what was raised.
        seconds: how long it took.
        spoiled: what it had changed for its whole process: often the cause.
    """

    def outcome(status: Status, reason: str, trace: str | None = None, **more: Any) -> Outcome:
        reason = cut(reason, _MOST_REASON)
        if spoiled is not None and not isinstance(error, Spoiled):
            reason = f"{reason}; {spoiled}"
        return Outcome(task.key, status, reason, trace, seconds=seconds, **more)

    trace = _ends("".join(traceback.format_exception(error)))
    match error:
        case Diverged():
            return outcome("diverged", str(error), result={"details": {"history": error.history}})
        case Unsupported():
            return outcome("skipped", str(error))
        case OutOfMemory():
            return outcome("oom", str(error), trace, result={"details": {"peak_mib": error.peak_mib}})
        case Barred():  # another process may still write there
            return outcome("failed", str(error))
        case CacheError():
            return outcome("failed", str(error), cache="removed" if error.removed else "unusable")
        case CnnbenchError():
            return outcome("failed", str(error))
        case _ if (cause := likely_cause(error)) is not None:
            return outcome("failed", f"{_one_line(error)}; {cause}", trace)
        case _ if ran_out(error):
            return outcome("oom", "out of memory", trace)
        case _:
            return outcome("failed", _one_line(error), trace)


def _ends(text: str) -> str:
    """Beginning and end of a long text, and how much was left out between them."""
    if len(text) <= _MOST_TRACE:
        return text
    half = _MOST_TRACE // 2
    return f"{text[:half]}\n[{len(text) - 2 * half:,} characters were left out]\n{text[-half:]}"


def _one_line(error: BaseException) -> str:
    """What was raised and where: the innermost line that is not torch's own."""
    what = words_of(error)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not Path(f.filename).is_relative_to(_TORCH)]
    return f"{what} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else what
