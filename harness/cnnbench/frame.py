"""Records to a frame: one row for each planned trial of the latest run, whether it has ended or not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cnnbench.errors import UsageError
from cnnbench.registry import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

PENDING = "pending"
"""Status of a planned trial that has no record yet."""


@dataclass(frozen=True)
class TrialSet:
    """The trials that one table shows.

    Attributes:
        arms: planned arms, the baseline first.
        seeds: planned seeds.
        roles: role by arm.
        references: by arm, the one that it is compared with; None for none. It need not be among the arms.
        records: the latest record by arm and seed.
        heading: a record that speaks for what all share: suite, measure, device.
        left_out: number of records of earlier plans, suites or other devices.
        dataset: label of the dataset; empty in records that don't say.
        arrays: what ``series`` has made of the records so far, by quantity and method, then by arm.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    roles: Mapping[str, str]
    references: Mapping[str, str | None]
    records: Mapping[tuple[str, int], Mapping[str, Any]]
    heading: Mapping[str, Any]
    left_out: int
    dataset: str = ""
    arrays: dict[tuple[str, str | None], dict[str, NDArray[np.float64]]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @property
    def baseline(self) -> str | None:
        """The baseline's name, if the plan has one."""
        return next((arm for arm in self.arms if self.roles[arm] == "baseline"), None)

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """The seeds planned for an arm: all, unless they were added where they were needed."""
        own = (self.heading.get("planned") or {}).get("seeds_of") or {}
        return tuple(own.get(arm, self.seeds))

    def planned(self) -> Iterator[tuple[str, int, Mapping[str, Any] | None]]:
        """Every planned trial, arm by arm: the arm, the seed, and the record; None where it has none yet."""
        for arm in self.arms:
            for seed in self.seeds_of(arm):
                yield arm, seed, self.records.get((arm, seed))

    def of(self, arm: str) -> list[Mapping[str, Any]]:
        """The records of one arm, in the order of the seeds."""
        return [self.records[arm, seed] for seed in self.seeds if (arm, seed) in self.records]

    def ok(self, arm: str) -> list[Mapping[str, Any]]:
        """Those of one arm that are ok, in the order of the seeds."""
        return [record for record in self.of(arm) if record["status"] == "ok"]


def current(records: Sequence[Mapping[str, Any]]) -> TrialSet:
    """The trials that the last record belongs to: same suite, same plan, same device.

    A results folder may hold more: an edited suite, more seeds, another device. A run enters again, under its own plan,
    what it takes over from earlier ones; the rest is history and must not mix into the table.

    Args:
        records: in the order of the file.

    Returns:
        Of a run on several datasets those on the first; see ``by_dataset``.

    Raises:
        UsageError: there are none.
    """
    return next(iter(by_dataset(records).values()))


def by_dataset(records: Sequence[Mapping[str, Any]]) -> dict[str, TrialSet]:
    """The trials of ``current`` by the label of their dataset, in the suite's order. Takes and raises what it does."""
    if not records:
        raise UsageError("no records to show: run the suite first")
    last = records[-1]
    plans = _Plans()
    plan = plans.of(last)
    mine = [record for record in records if plans.of(record) == plan]
    known = dict.fromkeys(record.get("dataset") or "" for record in mine)
    labels = dict.fromkeys([*((last.get("planned") or {}).get("datasets") or ()), *known])
    left_out = len(records) - len(mine)
    return {
        label: _trials(label, [record for record in mine if (record.get("dataset") or "") == label], mine, left_out)
        for label in labels
    }


def on_dataset(records: Sequence[Mapping[str, Any]], label: str | None) -> TrialSet:
    """The trials of ``current`` on one dataset.

    Args:
        records: in the order of the file.
        label: of the dataset; None where the run has only one.

    Raises:
        UsageError: there are no records, no such dataset, or several to choose from.
    """
    found = by_dataset(records)
    if label is None and len(found) > 1:
        raise UsageError(f"--dataset: this run has several: expected one of {', '.join(map(repr, found))}")
    if label is not None and label not in found:
        raise UsageError(f"--dataset: no dataset {label!r} in this run: {nearest(label, list(found))}".rstrip(": "))
    return next(iter(found.values())) if label is None else found[label]


def _trials(
    dataset: str, mine: Sequence[Mapping[str, Any]], all_mine: Sequence[Mapping[str, Any]], left_out: int
) -> TrialSet:
    """The trials on one dataset; what arms are is known from their records on any."""
    heading = (mine or all_mine)[-1]
    found = {(record["arm"], record["seed"]): record for record in mine}
    planned = heading.get("planned") or {}
    arms = list(dict.fromkeys([*planned.get("arms", ()), *(arm for arm, _ in found)]))
    seeds = list(dict.fromkeys([*planned.get("seeds", ()), *sorted({seed for _, seed in found})]))
    known = {record["arm"]: record["role"] for record in all_mine}
    # Of an arm without any record the plan tells no role; but it lists the baseline first.
    first = "arm" if "baseline" in known.values() else "baseline"
    roles = {arm: known.get(arm, first if place == 0 else "arm") for place, arm in enumerate(arms)}
    arms.sort(key=lambda arm: roles[arm] != "baseline")
    baseline = next((arm for arm in arms if roles[arm] == "baseline"), None)
    references = dict.fromkeys(arms, baseline)  # also of arms without any record, and of records that name none
    references |= {record["arm"]: record["reference"] for record in all_mine if record.get("reference")}
    if baseline is not None:
        references[baseline] = None
    return TrialSet(tuple(arms), tuple(seeds), roles, references, found, heading, left_out, dataset)


class _Plans:
    """Plans of records as text; of records that share what tells of it, made once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, object], str] = {}

    def of(self, record: Mapping[str, Any]) -> str:
        """The plan of a record that outlives this."""
        suite, planned, device = record.get("suite"), record.get("planned"), record.get("device")
        same = (id(suite), id(planned), device)
        if same not in self._known:
            suite = suite or {}
            self._known[same] = json.dumps([suite.get("name"), suite.get("sha256"), planned, device])
        return self._known[same]


def to_frame(trials: TrialSet) -> pd.DataFrame:
    """One row for each planned trial of one dataset, arm by arm.

    Columns ``arm``, ``role``, ``changes``, ``seed``, ``status`` (``pending`` without a record), ``reason``, then one of
    float64 for each recorded quantity by its key; a trial that is not ok has none, whatever it measured before.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    keys: dict[str, None] = {}
    for arm, seed, found in trials.planned():
        record = found or {}
        status = record.get("status", PENDING)
        measured = (record.get("metrics") or {}) if status == "ok" else {}
        metrics = {key: value for key, value in measured.items() if isinstance(value, int | float)}
        keys.update(dict.fromkeys(metrics))
        rows.append(
            {
                "arm": arm,
                "role": trials.roles[arm],
                "changes": record.get("changes") or "",
                "seed": seed,
                "status": status,
                "reason": record.get("reason") or "",
                **metrics,
            }
        )
    frame = pd.DataFrame(rows, columns=["arm", "role", "changes", "seed", "status", "reason", *keys])
    return frame.astype(dict.fromkeys(keys, "float64"))
