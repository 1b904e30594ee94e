"""Tests of template_name: every rule of cnnbench's conformance kit, and when it rests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.execute.interface import Outcome, Task
from cnnbench.scaffold.templates.executor.technique import RestingExecutor, Template
from cnnbench.testing import ConformanceCase

if TYPE_CHECKING:
    from collections.abc import Sequence


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot executor keep."""

    technique = Template


class Recorder:
    """An executor that does nothing, and a clock that does not wait; both write down what they are asked for."""

    places = 1

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def submit(self, task: Task) -> None:
        """Write down the stage's kind."""
        self.heard.append(task.spec["kind"])

    def wait(self) -> Sequence[Outcome]:
        """Nothing happens."""
        return []

    def close(self) -> None:
        """Nothing to stop."""


def test_it_rests_before_what_is_timed_and_before_nothing_else() -> None:
    """The kit sees that tasks are run, not what comes between them."""
    inner = Recorder()
    executor = RestingExecutor(inner, 1.5, sleep=inner.heard.append)
    for kind in ("train", "evaluate", "latency", "profile", "energy"):
        executor.submit(Task("key", {"kind": kind}, (), ""))
    assert inner.heard == ["train", "evaluate", 1.5, "latency", "profile", 1.5, "energy"]
