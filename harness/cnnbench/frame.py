"""Records to a frame: one row for each planned trial of the latest run, whether it has ended or not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from cnnbench.errors import UsageError
from cnnbench.registry import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from cnnbench.recorded import Block

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
        blocks: what ``series`` has made of the records so far, by arm.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    roles: Mapping[str, str]
    references: Mapping[str, str | None]
    records: Mapping[tuple[str, int], Mapping[str, Any]]
    heading: Mapping[str, Any]
    left_out: int
    dataset: str = ""
    blocks: dict[str, tuple[Block, ...]] = field(default_factory=dict, init=False, compare=False, repr=False)

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
            for seed, record in self.planned_of(arm):
                yield arm, seed, record

    def planned_of(self, arm: str) -> Iterable[tuple[int, Mapping[str, Any] | None]]:
        """The planned trials of one arm: the seed, and the record."""
        seeds = self.seeds_of(arm)
        if seeds == self.seeds:
            return zip(seeds, self.by_seed(arm), strict=True)
        return [(seed, self.records.get((arm, seed))) for seed in seeds]

    def of(self, arm: str) -> tuple[Mapping[str, Any], ...]:
        """The records of one arm, in the order of the seeds."""
        return tuple([record for record in self.by_seed(arm) if record is not None])

    def ok(self, arm: str) -> tuple[Mapping[str, Any], ...]:
        """Those of one arm that are ok, in the order of the seeds."""
        return self._ok_by_arm.get(arm, ())

    def by_seed(self, arm: str) -> Sequence[Mapping[str, Any] | None]:
        """The record of one arm for each of ``seeds``."""
        return self._by_seed.get(arm) or [None] * len(self.seeds)

    @cached_property
    def all_ok(self) -> tuple[Mapping[str, Any], ...]:
        """Those of any arm that are ok, in the order of the file."""
        return tuple([record for record in self.records.values() if record["status"] == "ok"])

    @cached_property
    def details(self) -> tuple[Mapping[str, Any], ...]:
        """What those of ``all_ok`` tell beside their quantities."""
        return tuple([record.get("details") or {} for record in self.all_ok])

    @cached_property
    def _by_seed(self) -> dict[str, list[Mapping[str, Any] | None]]:
        """Of each arm that has any, its records, one for each of ``seeds``: many readers ask for them."""
        places = {seed: place for place, seed in enumerate(self.seeds)}
        rows: dict[str, list[Mapping[str, Any] | None]] = {}
        for (arm, seed), record in self.records.items():
            if arm not in rows:
                rows[arm] = [None] * len(places)
            if seed in places:
                rows[arm][places[seed]] = record
        return rows

    @cached_property
    def _ok_by_arm(self) -> dict[str, tuple[Mapping[str, Any], ...]]:
        return {arm: tuple([record for record in self.of(arm) if record["status"] == "ok"]) for arm in self._by_seed}


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
    # Records may share what tells of their plan, and then it need not be looked at in each.
    alike = [(id(record.get("suite")), id(record.get("planned")), record.get("device")) for record in records]
    plans = {one: _plan(record) for one, record in dict(zip(alike, records, strict=True)).items()}
    plan = plans[alike[-1]]
    mine = [record for record, one in zip(records, alike, strict=True) if plans[one] == plan]
    found: dict[str, list[Mapping[str, Any]]] = {}
    for label in (last.get("planned") or {}).get("datasets") or ():
        found[label] = []
    for record in mine:
        found.setdefault(record.get("dataset") or "", []).append(record)
    left_out = len(records) - len(mine)
    return {label: _trials(label, own, mine, left_out) for label, own in found.items()}


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
    found = dict(zip(map(itemgetter("arm", "seed"), mine), mine, strict=True))
    planned = heading.get("planned") or {}
    arms = list(dict.fromkeys([*planned.get("arms", ()), *(arm for arm, _ in found)]))
    seeds = list(dict.fromkeys([*planned.get("seeds", ()), *sorted({seed for _, seed in found})]))
    known: dict[str, str] = dict(map(itemgetter("arm", "role"), all_mine))
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


def _plan(record: Mapping[str, Any]) -> str:
    """The plan of a record as text."""
    suite = record.get("suite") or {}
    return json.dumps([suite.get("name"), suite.get("sha256"), record.get("planned"), record.get("device")])


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
