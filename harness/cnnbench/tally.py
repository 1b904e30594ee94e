"""Where a run stands, and how long it will take.

Time left is estimated from a training's own epochs and from finished stages of the same kind, so that cheap and dear
stages are not mixed up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cnnbench.plan import EXCLUSIVE
from cnnbench.text import duration, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence


class Running(NamedTuple):
    """A running stage, for the estimate of time left.

    Attributes:
        kind: of the stage.
        elapsed: seconds so far.
        total: seconds that it will take in all, judged by its epochs; None where it has none to judge by.
    """

    kind: str
    elapsed: float
    total: float | None = None


@dataclass(frozen=True)
class TimeLeft:
    """An estimate of the time until a run ends.

    Attributes:
        seconds: for the stages of kinds that have examples.
        complete: every kind still to come has one; else the true time is longer.
    """

    seconds: float
    complete: bool

    def __str__(self) -> str:
        return f"{'about' if self.complete else 'more than'} {duration(self.seconds)} left"


def time_left(
    seconds: Mapping[str, Sequence[float]],
    waiting: Mapping[str, int],
    running: Sequence[Running],
    workers: int,
    exclusive: Collection[str] = EXCLUSIVE,
) -> TimeLeft | None:
    """Time until all stages are done.

    ``max(work / workers, longest) + alone``: ``work`` sums the mean time of its kind over each stage that is waiting
    and what is left of its own total, or else of that mean, over each that is running, ``longest`` is the largest of
    these, and ``alone`` is the same sum for exclusive kinds, which run one by one after the others. Where no stage of a
    kind has finished, the totals of running ones stand in for its mean.

    Args:
        seconds: wall times of finished stages by kind.
        waiting: number of stages not started by kind.
        running: stages under way.
        workers: stages at once.
        exclusive: kinds that run alone.

    Returns:
        None while no kind that is left has an example, finished or with a total.
    """
    totals: defaultdict[str, list[float]] = defaultdict(list)
    for stage in running:
        if stage.total is not None:
            totals[stage.kind].append(stage.total)
    examples = {**totals, **{kind: times for kind, times in seconds.items() if times}}
    mean = {kind: sum(times) / len(times) for kind, times in examples.items()}
    left = [(kind, mean[kind]) for kind, count in waiting.items() if kind in mean for _ in range(count)]
    for kind, elapsed, total in running:
        if kind in mean:
            left.append((kind, max((mean[kind] if total is None else total) - elapsed, 0.0)))
    needed = {kind for kind, count in waiting.items() if count} | {stage.kind for stage in running}
    if needed and not needed & mean.keys():
        return None
    shared = [time for kind, time in left if kind not in exclusive]
    alone = sum(time for kind, time in left if kind in exclusive)
    return TimeLeft(max(sum(shared) / workers, max(shared, default=0.0)) + alone, needed <= mean.keys())


@dataclass
class _Stage:
    """A running stage: when it began, and its epochs so far (0 of 0 before the first has ended)."""

    kind: str
    since: float
    epoch: int = 0
    epochs: int = 0
    total: float | None = None
    repeats: bool = False


class Tally:
    """Where a run stands: stages done, running and to come.

    Args:
        clock: seconds, only ever growing.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: Counter[str] = Counter()
        self._running: dict[str, _Stage] = {}
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._workers = 1
        self.total = 0
        self.done = 0

    def start(self, total_by_kind: Mapping[str, int], workers: int) -> None:
        """Begin counting, again where seeds were added; what stages took is not forgotten."""
        self._waiting = Counter(total_by_kind)
        self._running.clear()
        self.done = 0
        self._workers = max(workers, 1)
        self.total = sum(total_by_kind.values())

    def started(self, label: str, kind: str) -> None:
        """A stage runs."""
        self._waiting[kind] -= 1
        self._running[label] = _Stage(kind, self._clock())

    def advanced(self, label: str, epoch: int, epochs: int) -> None:
        """An epoch of a running stage ended.

        Epochs that begin anew belong to a stage that trains more than once: how often is not known, so they say nothing
        about its end.
        """
        if (stage := self._running.get(label)) is None:
            return
        stage.repeats |= epoch <= stage.epoch
        stage.epoch, stage.epochs = epoch, epochs
        # As of now, and not as of the moment of asking: else time left would grow until the next epoch ends.
        stage.total = None if stage.repeats else (self._clock() - stage.since) * epochs / epoch

    def finished(self, label: str, kind: str, seconds: float, status: str) -> None:
        """A stage ended, or its result was on disk; only time that was spent on success tells of times to come."""
        if self._running.pop(label, None) is None:
            self._waiting[kind] -= 1
        elif status == "ok":
            self._seconds[kind].append(seconds)
        self.done += 1

    @property
    def running(self) -> list[str]:
        """Running stages with their epochs, the oldest first."""
        return [stage_text(label, stage.epoch, stage.epochs) for label, stage in self._running.items()]

    @property
    def alone(self) -> bool:
        """Whether an exclusive stage is running."""
        return any(stage.kind in EXCLUSIVE for stage in self._running.values())

    def left(self) -> TimeLeft | None:
        """Estimated time to the end."""
        now = self._clock()
        running = [Running(stage.kind, now - stage.since, stage.total) for stage in self._running.values()]
        return time_left(self._seconds, +self._waiting, running, self._workers)


def stage_text(label: str, epoch: int, epochs: int) -> str:
    """A running stage on one line, with its epochs once the first has ended."""
    return printable(f"{label}, epoch {epoch} of {epochs}" if epoch else label)
