"""What passes between the scheduler and an executor.

An executor has a number of places; the scheduler never hands it more tasks than that, and hands it an exclusive task
only when all places are free. It answers with events: epochs as they end, and one outcome for each task (those beside
it included), whatever became of it. ``execute.perform.perform`` does a task and gives its outcomes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Status = Literal["ok", "failed", "diverged", "skipped", "timeout", "oom", "crashed"]


@dataclass(frozen=True)
class Task:
    """A stage on its way to a worker.

    Attributes:
        key: of the stage.
        spec: the stage's task, JSON-ready.
        inputs: result folders of the stages it starts from.
        folder: where its results go.
        time_limit: seconds for all members together, or None.
        own_process: it must run in a process that has done nothing before, and ends afterwards.
        beside: other tasks that are measured with this one, in turns, by one worker, or trained with it in one loop.
            One without a folder is there to be compared with alone: it has no outcome.
    """

    key: str
    spec: Mapping[str, Any]
    inputs: tuple[str, ...]
    folder: str
    time_limit: float | None = None
    own_process: bool = False
    beside: tuple[Task, ...] = ()

    @property
    def members(self) -> tuple[Task, ...]:
        """Itself and those beside it."""
        return (self, *self.beside)

    def absolute(self) -> Task:
        """The same with folders that mean the same in any working directory."""
        return replace(
            self,
            inputs=tuple(os.path.abspath(path) for path in self.inputs),  # noqa: PTH100 - text, as it was
            folder=self.folder and os.path.abspath(self.folder),  # noqa: PTH100
            beside=tuple(one.absolute() for one in self.beside),
        )


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        key: of the stage.
        status: ``ok``, or why not.
        reason: one line for people where not ok.
        trace: the traceback of an unexpected fault.
        result: what the stage found (only where ok).
        seconds: wall time.
        cache: what befell the cache, where that and not the stage is why it is not ok: ``removed``, and the stage may
            run again; or ``unusable``, and nothing that runs can be kept.
    """

    key: str
    status: Status
    reason: str | None = None
    trace: str | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    cache: Literal["", "removed", "unusable"] = ""


@dataclass(frozen=True)
class Epoch:
    """A training epoch ended.

    Attributes:
        key: of the stage.
        progress: fields of ``types.Progress``.
    """

    key: str
    progress: Mapping[str, Any]


@dataclass(frozen=True)
class Placed:
    """A task was taken up. An executor that knows where tells it, for each member of the task; it need not.

    Attributes:
        key: of the stage.
        where: for people, e.g. ``worker 2``, with its device or node where it has one of its own.
    """

    key: str
    where: str


class TaskExecutor(Protocol):
    """Runs tasks somewhere.

    ``per_device``, how many tasks may run at once on one device, is optional: 1 where an executor does not say.
    """

    @property
    def places(self) -> int:
        """How many tasks run at once."""

    def submit(self, task: Task) -> None:
        """Start a task; returns at once where tasks run elsewhere."""

    def wait(self) -> Sequence[Outcome | Epoch | Placed]:
        """Block until something happened, and return it."""

    def close(self) -> None:
        """Stop everything at once; what was running is lost."""
