"""Perform one task in this process and say what became of it. Both executors end here."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cnnbench.errors import CnnbenchError, Diverged, Unsupported
from cnnbench.execute.cache import filling, write_result
from cnnbench.execute.interface import Outcome, Status, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cnnbench.stages.bench import Bench


_TORCH = Path(torch.__file__).parent


def perform(
    task: Task,
    bench: Bench,
    tell: Callable[[Mapping[str, Any]], None],
    faults: tuple[type[BaseException], ...] = (Exception, SystemExit),
) -> Outcome:
    """Run a stage and keep its result.

    Args:
        task: what to do.
        bench: this process's data, device and meters.
        tell: called with the progress of each epoch.
        faults: what costs the task alone; anything else that is raised goes through.
    """
    began = time.perf_counter()

    def outcome(status: Status, reason: str | None = None, trace: str | None = None, **more: Any) -> Outcome:
        return Outcome(task.key, status, reason, trace, seconds=time.perf_counter() - began, **more)

    try:
        with filling(Path(task.folder)) as scratch:
            result = bench.run(task.spec, [Path(path) for path in task.inputs], scratch, tell)
            write_result(scratch, result)
        return outcome("ok", result=result)
    except Diverged as error:
        return outcome("diverged", str(error), result={"details": {"history": error.history}})
    except Unsupported as error:
        return outcome("skipped", str(error))
    except CnnbenchError as error:
        return outcome("failed", str(error))
    except MemoryError:
        return outcome("failed", "out of memory", traceback.format_exc())
    except faults as error:  # a technique is another's code: anything may come out
        return outcome("failed", _one_line(error), traceback.format_exc())


def _one_line(error: BaseException) -> str:
    """What was raised and where: the innermost line that is not torch's own."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - the text of another's exception is another's code too
        text = ""
    what = f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not Path(f.filename).is_relative_to(_TORCH)]
    return f"{what} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else what
