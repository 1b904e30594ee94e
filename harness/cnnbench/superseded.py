"""Finished trials that no longer count although nobody edited them: made by other code, or of other data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.pairs import edits
from cnnbench.plain import measure_plain, settings_plain
from cnnbench.text import listed, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cnnbench.keys import Place
    from cnnbench.plan import Plan, PlannedTrial
    from cnnbench.suite import Suite

    Record = Mapping[str, Any]
    Name = tuple[str, str, int]

_NOT_IN_KEYS = frozenset(
    {"python", "platform", "cores", "ram", "energy", "revision", "driver", "OMP_NUM_THREADS", "numpy"}
)
"""What of an environment no stage's key depends on."""
_OF_MEASURING = frozenset({"cpu", "device", "cores_usable", "codecarbon"})
"""What only the keys of measured stages do."""
_MEASURED = frozenset({"memory", "latency", "energy"})


def superseded(
    plan: Plan, records: Iterable[Record], suite: Suite, place: Place, environment: Mapping[str, str]
) -> str | None:
    """What to say of trials on record that have the plan's arms, seeds and settings, and don't count all the same.

    Args:
        plan: of the suite.
        records: of its folder.
        suite: as it is now.
        place: where it would run.
        environment: the present one, as records hold it.

    Returns:
        A line, or None where there are no such trials.
    """
    ok = [record for record in records if record["status"] == "ok"]
    known = {record["key"] for record in ok}
    planned = {_name(t): t for t in plan.trials if t.skip is None and t.key not in known}
    if not planned:
        return None
    unedited = _Unedited(suite, place)
    found: dict[Name, Record] = {}
    for record in ok:
        name = (str(record.get("dataset", "")), str(record.get("arm", "")), record.get("seed", -1))
        if name in planned and unedited(planned[name], record):
            found[name] = record  # the last one counted
    changed = {name: _changed(planned[name], record) for name, record in found.items()}
    counted = [name for name in found if _outdated(planned[name], changed)]
    if not counted:
        return None
    trained = any(changed[name] - _MEASURED for name in counted)
    reasons: dict[str, None] = {}
    for name in counted:
        reasons.update(dict.fromkeys(_reasons(planned[name], found[name], environment, trained=trained)))
    why = listed(reasons, 4, "; ") or "other code of cnnbench or of a plugin"
    return (
        f"recorded trials that no longer count: {len(counted)}, made with {why}; what differs runs again, "
        "and their records stay in records.jsonl"
    )


def _name(planned: PlannedTrial) -> Name:
    return planned.trial.dataset, planned.trial.arm.name, planned.trial.seed


class _Unedited:
    """Whether a record is of a trial as the suite still has it: what an edited suite runs again surprises nobody."""

    def __init__(self, suite: Suite, place: Place) -> None:
        self._measure = measure_plain(suite.measure)
        self._kind = place.kind
        self._plain: dict[tuple[str, str], dict[str, Any]] = {}
        self._alike: dict[tuple[str, str, int], bool] = {}  # records of an arm share their settings in memory

    def __call__(self, planned: PlannedTrial, record: Record) -> bool:
        if str(record.get("device", "")).partition(":")[0] != self._kind or not self._measured_alike(record):
            return False
        arm = planned.trial.arm
        if record.get("role") != arm.role or (record.get("reference") or None) != (arm.against or None):
            return False
        name = (planned.trial.dataset, arm.name)
        if name not in self._plain:
            self._plain[name] = settings_plain(arm.settings)
        then, now = record.get("settings"), self._plain[name]
        one = (*name, id(then))
        if one not in self._alike:
            self._alike[one] = then == now or not edits({"settings": then}, {"settings": now})
        return self._alike[one]

    def _measured_alike(self, record: Record) -> bool:
        then, now = record.get("measure") or {}, self._measure
        if ("memory_train" in (then.get("metrics") or ())) != ("memory_train" in now["metrics"]):
            return False  # which trains in a process of its own
        return all(name not in then or then[name] == now[name] for name in ("latency", "energy"))


def _changed(planned: PlannedTrial, record: Record) -> set[str]:
    """Kinds of the stages whose keys are others now; a metric that the suite has gained makes none so."""
    stages = record.get("stages") or {}
    return {kind for kind, key in planned.stages.items() if kind in stages and stages[kind] != key}


def _outdated(planned: PlannedTrial, changed: Mapping[Name, set[str]]) -> bool:
    """Whether a trial's stages are others for what is not the suite's doing.

    A latency alone is another one too where the arm was edited that it is compared with.
    """
    own = changed[_name(planned)]
    against = planned.trial.arm.against
    if own == {"latency"} and against:
        return bool(changed.get((planned.trial.dataset, against, planned.trial.seed)))
    return bool(own)


def _reasons(planned: PlannedTrial, record: Record, now: Mapping[str, str], *, trained: bool) -> list[str]:
    """What differs between then and now, as far as the record tells."""
    then = record.get("environment") or {}
    silent = _NOT_IN_KEYS | _OF_MEASURING if trained else _NOT_IN_KEYS
    reasons = [
        printable(f"{name} {then.get(name, 'none')} (now {now.get(name, 'none')})")
        for name in dict.fromkeys([*then, *now])
        if name not in silent and then.get(name) != now.get(name)
    ]
    if record.get("data") and record["data"] != planned.data:
        reasons.append("other data")
    return reasons
