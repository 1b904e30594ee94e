"""Where a run stands, and how long it will take."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING, NamedTuple

from cnnbench.costs import Arm, Costs, Work
from cnnbench.failures import FINE
from cnnbench.text import duration, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


class Ahead(NamedTuple):
    """Stages of one kind and arm that are still to be done, for the estimate of time left.

    Attributes:
        seconds: that each of them takes, or what is left of a running one; None where nothing tells.
        exclusive: they run alone, after the others.
        stages: how many of them there are.
    """

    seconds: float | None
    exclusive: bool = False
    stages: int = 1


@dataclass(frozen=True)
class TimeLeft:
    """An estimate of the time until a run ends.

    Attributes:
        seconds: for the stages whose cost is known.
        complete: it is for all of them; else the true time is longer.
    """

    seconds: float
    complete: bool

    def __str__(self) -> str:
        return f"{'about' if self.complete else 'more than'} {duration(self.seconds)} left"


def time_left(ahead: Iterable[Ahead], workers: int) -> TimeLeft | None:
    """Time until all stages are done.

    ``max(work / workers, longest) + alone``: ``work`` is the sum over stages that share the workers, ``longest`` the
    largest of them, and ``alone`` the sum over exclusive ones, which run one by one after the others.

    Args:
        ahead: stages not started, and what is left of those under way.
        workers: stages at once.

    Returns:
        None where stages are ahead and nothing tells of any of them.
    """
    work: list[float] = []
    alone: list[float] = []
    longest = 0.0
    unknown = False
    for seconds, exclusive, count in ahead:
        if not count:
            continue
        if seconds is None:
            unknown = True
            continue
        (alone if exclusive else work).append(seconds * count)
        if not exclusive:
            longest = max(longest, seconds)
    if unknown and not work and not alone:
        return None
    # Rounded once: what fits into a budget must not depend on the order in which stages are counted.
    return TimeLeft(max(fsum(work) / max(workers, 1), longest) + fsum(alone), not unknown)


def total_time(work: Iterable[Work], costs: Costs, workers: int) -> TimeLeft | None:
    """Time that stages take of which none has started; see ``time_left``."""
    groups = Counter((one.kind, one.arm, one.exclusive) for one in work)
    return time_left((Ahead(costs.expected(kind, arm), alone, n) for (kind, arm, alone), n in groups.items()), workers)


@dataclass
class _Stage:
    """A running stage: when it began, where, and its epochs so far (0 of 0 before the first has ended)."""

    work: Work
    since: float
    where: str = ""
    epoch: int = 0
    epochs: int = 0
    total: float | None = None
    repeats: bool = False

    @property
    def group(self) -> tuple[str, str]:
        """Equal for stages that one worker does together, in turns; empty strings for one that is done by itself."""
        return (self.work.session, self.where) if self.work.session else ("", "")


class Line(NamedTuple):
    """What runs at one place, for people.

    Attributes:
        where: the place, e.g. ``worker 2``; empty where it is not told.
        text: the stage with its epochs, or the session with the number of its stages.
        seconds: for how long it has run.
    """

    where: str
    text: str
    seconds: float


class Tally:
    """Where a run stands: stages done, running and to come, and trials.

    Args:
        clock: seconds, only ever growing.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: Counter[tuple[str, Arm, bool]] = Counter()
        self._running: dict[str, _Stage] = {}
        self._costs = Costs()
        self._workers = 1
        self.total = self.done = 0
        self.trials = self.planned = self.failed = 0

    def start(self, work: Sequence[Work], workers: int, costs: Costs, trials: int, planned: int) -> None:
        """Begin counting, again where seeds were added; what failed before is not forgotten.

        Args:
            work: all stages to come.
            workers: stages at once.
            costs: what they will take; its owner teaches it as they end.
            trials: how many are on record already.
            planned: of so many.
        """
        self._waiting = Counter((one.kind, one.arm, one.exclusive) for one in work)
        self._running.clear()
        self._costs = costs
        self._workers = max(workers, 1)
        self.total, self.done = len(work), 0
        self.trials, self.planned = trials, planned

    def started(self, work: Work) -> None:
        """A stage runs; one that already did has begun again."""
        if self._running.pop(work.key, None) is None:
            self._waiting[work.kind, work.arm, work.exclusive] -= 1
        self._running[work.key] = _Stage(work, self._clock())

    def placed(self, work: Work, where: str) -> None:
        """A running stage has been taken up somewhere: its time counts from here."""
        if (stage := self._running.get(work.key)) is not None:
            stage.where, stage.since = where, self._clock()

    def advanced(self, work: Work, epoch: int, epochs: int) -> None:
        """An epoch of a running stage ended.

        Epochs that begin anew belong to a stage that trains more than once: how often is not known, so they say nothing
        about its end.
        """
        if (stage := self._running.get(work.key)) is None:
            return
        stage.repeats |= epoch <= stage.epoch
        stage.epoch, stage.epochs = epoch, epochs
        # As of now, and not as of the moment of asking: else time left would grow until the next epoch ends.
        elapsed = (self._clock() - stage.since) / max(1, self._shares()[stage.group])
        stage.total = None if stage.repeats else elapsed * epochs / epoch

    def finished(self, work: Work) -> None:
        """A stage ended, or its result was on disk."""
        if self._running.pop(work.key, None) is None:
            self._waiting[work.kind, work.arm, work.exclusive] -= 1
        self.done += 1

    def trial(self, status: str, done: int, planned: int) -> None:
        """A trial ended."""
        self.failed += status not in FINE
        self.trials, self.planned = done, planned

    @property
    def lines(self) -> list[Line]:
        """What is running where, the oldest first; stages that are done together are one line."""
        now = self._clock()
        groups: dict[tuple[str, str], list[_Stage]] = {}
        for key, stage in self._running.items():
            groups.setdefault(stage.group if stage.group[0] else (key, ""), []).append(stage)
        lines = []
        for members in groups.values():
            first = max(members, key=lambda stage: stage.epoch)
            label = f"{first.work.session}: {len(members)} together" if len(members) > 1 else first.work.label
            text = stage_text(label, first.epoch, first.epochs)
            lines.append(Line(printable(first.where), text, now - min(stage.since for stage in members)))
        return lines

    @property
    def alone(self) -> bool:
        """Whether an exclusive stage is running."""
        return any(stage.work.exclusive for stage in self._running.values())

    @property
    def counts(self) -> str:
        """Trials so far, e.g. ``8/30 trials, 1 failed``."""
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.trials}/{self.planned} trial{'s' * (self.planned != 1)}{failed}"

    def left(self) -> TimeLeft | None:
        """Estimated time to the end."""
        now = self._clock()
        totals, shares = self._totals(), self._shares()
        ahead = [
            Ahead(self._costs.expected(kind, arm, totals), exclusive, count)
            for (kind, arm, exclusive), count in self._waiting.items()
            if count > 0
        ]
        for stage in self._running.values():
            work = stage.work
            expected = self._costs.expected(work.kind, work.arm, totals) if stage.total is None else stage.total
            elapsed = (now - stage.since) / max(1, shares[stage.group])
            ahead.append(Ahead(None if expected is None else max(expected - elapsed, 0.0), work.exclusive))
        return time_left(ahead, self._workers)

    def _totals(self) -> Mapping[tuple[str, Arm], float]:
        """What running stages come to by their epochs, by kind and arm."""
        found: dict[tuple[str, Arm], list[float]] = {}
        for stage in self._running.values():
            if stage.total is not None:
                found.setdefault((stage.work.kind, stage.work.arm), []).append(stage.total)
        return {what: sum(totals) / len(totals) for what, totals in found.items()}

    def _shares(self) -> Counter[tuple[str, str]]:
        """How many stages share the time of one worker."""
        return Counter(stage.group for stage in self._running.values() if stage.group[0])


def stage_text(label: str, epoch: int, epochs: int) -> str:
    """A running stage on one line, with its epochs once the first has ended."""
    return printable(f"{label}, epoch {epoch} of {epochs}" if epoch else label)
