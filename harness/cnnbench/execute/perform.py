"""Perform a task in this process and say what became of it. All executors end here."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cnnbench.errors import CnnbenchError, Diverged, OutOfMemory, Unsupported
from cnnbench.execute.cache import filling, write_result
from cnnbench.execute.interface import Outcome, Status, Task
from cnnbench.stages.bench import MODEL
from cnnbench.stages.memory import ran_out
from cnnbench.stages.session import TOGETHER, Member

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cnnbench.stages.bench import Bench


_TORCH = Path(torch.__file__).parent


def perform(
    task: Task,
    bench: Bench,
    tell: Callable[[Mapping[str, Any]], None],
    faults: tuple[type[BaseException], ...] = (Exception, SystemExit),
) -> list[Outcome]:
    """Run a stage, or several that are measured together, and keep the results.

    Args:
        task: what to do.
        bench: this process's data, device and meters.
        tell: called with the progress of each epoch.
        faults: what costs the task alone; anything else that is raised goes through.
    """
    if task.spec["kind"] in TOGETHER:
        return _together(task, bench, faults)
    began = time.perf_counter()
    try:
        with filling(Path(task.folder)) as scratch:
            result = bench.run(task.spec, [Path(path) for path in task.inputs], scratch, tell)
            write_result(scratch, result)
    except faults as error:  # a technique is another's code: anything may come out
        return [_lost(task, error, time.perf_counter() - began)]
    return [Outcome(task.key, "ok", result=result, seconds=time.perf_counter() - began)]


def _together(task: Task, bench: Bench, faults: tuple[type[BaseException], ...]) -> list[Outcome]:
    """Measure a task and those beside it; what one of them does wrong costs itself alone."""
    began = time.perf_counter()
    recorded = [one for one in task.members if one.folder]
    members = [Member(one.key, one.spec, Path(one.inputs[-1]) / MODEL) for one in task.members]
    try:
        found = bench.measure(members, faults)
    except faults as error:
        seconds = (time.perf_counter() - began) / len(recorded)
        return [_lost(one, error, seconds) for one in recorded]
    seconds = (time.perf_counter() - began) / len(recorded)  # they took turns: each is charged its share
    outcomes = []
    for one in recorded:
        result = found[one.key]
        if isinstance(result, BaseException):
            outcomes.append(_lost(one, result, seconds))
            continue
        try:
            with filling(Path(one.folder)) as scratch:
                write_result(scratch, {"notes": [], **result, "seconds": seconds})
        except faults as error:
            outcomes.append(_lost(one, error, seconds))
        else:
            outcomes.append(Outcome(one.key, "ok", result={**result, "seconds": seconds}, seconds=seconds))
    return outcomes


def _lost(task: Task, error: BaseException, seconds: float) -> Outcome:
    """The outcome of a task that raised."""

    def outcome(status: Status, reason: str, trace: str | None = None, **more: Any) -> Outcome:
        return Outcome(task.key, status, reason, trace, seconds=seconds, **more)

    trace = "".join(traceback.format_exception(error))
    match error:
        case Diverged():
            return outcome("diverged", str(error), result={"details": {"history": error.history}})
        case Unsupported():
            return outcome("skipped", str(error))
        case OutOfMemory():
            return outcome("oom", str(error), trace, result={"details": {"peak_mib": error.peak_mib}})
        case CnnbenchError():
            return outcome("failed", str(error))
        case _ if ran_out(error):
            return outcome("oom", "out of memory", trace)
        case _:
            return outcome("failed", _one_line(error), trace)


def _one_line(error: BaseException) -> str:
    """What was raised and where: the innermost line that is not torch's own."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - the text of another's exception is another's code too
        text = ""
    what = f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not Path(f.filename).is_relative_to(_TORCH)]
    return f"{what} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else what
