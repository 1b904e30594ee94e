"""What stages cost: learned from those that have finished, and before that from earlier records of the suite.

Arms cost differently, and so do kinds of stages: each kind of each arm on each dataset is learned by itself.
"""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from cnnbench.failures import FINE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

Arm = tuple[str, str]
"""Dataset and name of an arm."""

_MACHINE = ("cpu", "device", "cores_usable")
"""What has to be equal in the environments of two records for the times of one to tell those of the other."""


class Work(NamedTuple):
    """A stage as those see it who tell of a run or judge its time.

    Attributes:
        key: of the stage.
        kind: of the stage.
        label: for people.
        arm: dataset and name of the first arm that needs it.
        session: stages that share it are done together, and each is charged its share of the time.
        exclusive: it runs alone, after all that is not.
    """

    key: str
    kind: str
    label: str
    arm: Arm = ("", "")
    session: str = ""
    exclusive: bool = False


class Costs:
    """Expected wall times.

    Args:
        earlier: times from before this run.
        failed: arms of which some trial has failed before this run.
    """

    def __init__(
        self, earlier: Mapping[tuple[str, Arm], Sequence[float]] | None = None, failed: Collection[Arm] = ()
    ) -> None:
        self._failed = frozenset(failed)
        self._earlier = {what: median(times) for what, times in (earlier or {}).items() if times}
        self._own: defaultdict[tuple[str, Arm], _Mean] = defaultdict(_Mean)
        self._kinds: defaultdict[str, _Mean] = defaultdict(_Mean)
        self._before: defaultdict[str, _Mean] = defaultdict(_Mean)
        for (kind, _), seconds in self._earlier.items():
            self._before[kind].add(seconds)
        self._paces: defaultdict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))

    def learn(self, kind: str, arm: Arm, seconds: float) -> None:
        """Take in a stage that has finished well."""
        self._own[kind, arm].add(seconds)
        self._kinds[kind].add(seconds)
        if (before := self._earlier.get((kind, arm))) is not None:
            now, then = self._paces[kind]
            self._paces[kind] = (now + seconds, then + before)

    def expected(self, kind: str, arm: Arm, running: Mapping[tuple[str, Arm], float] | None = None) -> float | None:
        """Seconds that a stage will take; None where nothing tells.

        The mean of its own kind and arm in this run; else what running ones of them come to; else their median in
        earlier records times the pace of this run, which is the time that stages of the kind took over the time that
        they took earlier; else what its kind took in other arms, in this run or else before it.

        Args:
            kind: of the stage.
            arm: whose it is.
            running: totals that running stages are judged to come to, by kind and arm.
        """
        own = (kind, arm)
        if own in self._own:
            return self._own[own].value
        if running and own in running:
            return running[own]
        if own in self._earlier:
            return self._earlier[own] * self._pace(kind)
        if kind in self._kinds:
            return self._kinds[kind].value
        if running and (totals := [seconds for (other, _), seconds in running.items() if other == kind]):
            return sum(totals) / len(totals)
        return self._before[kind].value if kind in self._before else None

    def exact(self, kind: str, arm: Arm) -> bool:
        """Whether a stage of this very kind and arm has been seen, or the arm has failed, in this run or before it.

        An arm that always fails shows no more of itself however often it runs.
        """
        return (kind, arm) in self._own or (kind, arm) in self._earlier or arm in self._failed

    def _pace(self, kind: str) -> float:
        now, then = self._paces[kind]
        return now / then if then > 0 else 1.0


class _Mean:
    """A mean that grows."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._count = 0

    def add(self, value: float) -> None:
        self._sum += value
        self._count += 1

    @property
    def value(self) -> float:
        return self._sum / self._count


def arm_of(record: Mapping[str, Any]) -> Arm:
    """The arm that a record is of."""
    return str(record.get("dataset", "")), str(record.get("arm", ""))


def earlier_costs(
    records: Iterable[Mapping[str, Any]], settings: Mapping[Arm, Mapping[str, Any]], machine: Mapping[str, str]
) -> Costs:
    """What stages cost by records of this suite that were made on a machine like this one, with arms as they are now.

    Args:
        records: of any runs.
        settings: of each arm that counts, JSON-ready. Those of a record have to equal them: what has been edited costs
            otherwise.
        machine: the present environment, as records hold it.
    """
    found: defaultdict[tuple[str, Arm], list[float]] = defaultdict(list)
    failed: set[Arm] = set()
    for record in records:
        arm = arm_of(record)
        if arm not in settings:
            continue
        environment = record.get("environment") or {}
        if any(environment.get(name) != machine.get(name) for name in _MACHINE):
            continue
        if record.get("settings") != settings[arm]:
            continue
        if record.get("status") not in FINE:
            failed.add(arm)
        for kind, seconds in (record.get("seconds") or {}).items() if record.get("status") == "ok" else ():
            found[str(kind), arm].append(float(seconds))
    return Costs(found, failed)
