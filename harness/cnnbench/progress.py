"""What a run shows while it runs, all of it on stderr: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Protocol, TextIO

from cnnbench.progress_bar import BarProgress
from cnnbench.progress_lines import PlainProgress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnbench.costs import Costs, Work


class Progress(Protocol):
    """What a run tells its viewer, in this order; ``finish`` always comes last, also after an error.

    A run that adds seeds look by look starts and finishes once for each look.
    """

    def start(self, work: Sequence[Work], workers: int, costs: Costs, trials: int, planned: int) -> None:
        """All stages to come, how many run at once, what they will take, and how many trials of how many are done."""

    def stage_started(self, work: Work) -> None:
        """A stage was handed to a worker; one that was lost with others may start again."""

    def stage_placed(self, work: Work, where: str) -> None:
        """A stage was taken up, and where: the number of a worker, with its device or node."""

    def stage_advanced(self, work: Work, epoch: int, epochs: int) -> None:
        """A running stage has ended ``epoch`` (from 1) of ``epochs``; a stage that trains again begins anew."""

    def stage_finished(self, work: Work) -> None:
        """A stage ended; one whose result was on disk never started."""

    def trial_finished(self, arm: str, seed: int, status: str, reason: str | None, done: int, planned: int) -> None:
        """A trial ended; ``done`` of ``planned`` trials have."""

    def message(self, text: str) -> None:
        """A line for people that belongs to no trial."""

    def finish(self) -> None:
        """The run ended; may come twice."""


def make_progress(*, quiet: bool = False, stream: TextIO | None = None) -> Progress:
    """The viewer that suits a stream (stderr by default): a bar on a terminal that can move its cursor, else lines."""
    if quiet:
        return QuietProgress()
    stream = stream or sys.stderr
    able = stream.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}
    return BarProgress(stream) if able else PlainProgress(stream)


class QuietProgress:
    """Says nothing."""

    def start(self, work: Sequence[Work], workers: int, costs: Costs, trials: int, planned: int) -> None:
        """Nothing to show."""

    def stage_started(self, work: Work) -> None:
        """Nothing to show."""

    def stage_placed(self, work: Work, where: str) -> None:
        """Nothing to show."""

    def stage_advanced(self, work: Work, epoch: int, epochs: int) -> None:
        """Nothing to show."""

    def stage_finished(self, work: Work) -> None:
        """Nothing to show."""

    def trial_finished(self, arm: str, seed: int, status: str, reason: str | None, done: int, planned: int) -> None:
        """Nothing to show."""

    def message(self, text: str) -> None:
        """Nothing to show."""

    def finish(self) -> None:
        """Nothing to show."""
