"""An executor that rests between tasks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from cnnbench import technique

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cnnbench.execute.interface import Epoch, Outcome, Placed, Task, TaskExecutor
    from cnnbench.plugins import PluginHost


@technique("executor", "template_name")
class Template:
    """Runs tasks in this process, one at a time, and rests before each that measures time or energy.

    Made for machines that slow down when they are warm: the processor cools for ``rest`` seconds, so that what is
    measured first and last meets the same clock. No paper's.

    Helps laptops and fanless machines. Known not to help where cooling is good, and to protect a run from nothing: a
    technique that ends the process ends the run.

    Attributes:
        rest: seconds before each task that measures time or energy.
    """

    # An option is a typed field. ``cnnbench run`` names an executor without options, so this is the value it gets.
    rest: Annotated[float, Ge(0), Le(600)] = 2.0

    def __call__(self, workers: int | None, host: PluginHost) -> TaskExecutor:
        """Make the executor. It has one place, however many workers are asked for."""
        # Imports torch, which listing techniques should not have to wait for.
        from cnnbench.execute.inline import InlineExecutor

        return RestingExecutor(InlineExecutor(host), self.rest)


class RestingExecutor:
    """Hands tasks to another executor, some of them after a rest.

    Args:
        inner: runs the tasks.
        rest: seconds.
        sleep: waits for so long.
    """

    def __init__(self, inner: TaskExecutor, rest: float, sleep: Callable[[float], object] = time.sleep) -> None:
        self._inner = inner
        self._rest = rest
        self._sleep = sleep

    @property
    def places(self) -> int:
        """How many tasks run at once."""
        return self._inner.places

    def submit(self, task: Task) -> None:
        """Run a task to its end."""
        if task.spec["kind"] in ("latency", "energy"):
            self._sleep(self._rest)
        self._inner.submit(task)

    def wait(self) -> Sequence[Outcome | Epoch | Placed]:
        """What happened since it was last asked."""
        return self._inner.wait()

    def close(self) -> None:
        """Stop everything at once."""
        self._inner.close()
