"""Records of several machines as one run each, or the reason why they do not belong together.

Trials of one kind of machine are one run. Beside another kind of machine with the same type of device a run's quality
stands too, seed by seed, and its times do not: so that an arm and its reference are always of one machine, a seed is
taken over only where the trials that both have agree exactly. The result does not hang on the order of the sources, and
merging it again changes nothing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from cnnbench.anonymous import without_folders
from cnnbench.errors import UsageError
from cnnbench.machines import BORROWED, Machine, Record, asks_for_quality_alone, borrowed, machine_of
from cnnbench.pairs import settings_changes
from cnnbench.publication import shown
from cnnbench.quality import quality
from cnnbench.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Place = tuple[str, str, int]
"""Label of the dataset, arm, seed."""

_VERSIONS = ("cnnbench", "torch", "torchvision", "python")
_CERTAIN = frozenset({"ok", "diverged"})
"""Statuses that code and seed decide; the others may be the machine's doing."""


@dataclass(frozen=True)
class Source:
    """Where records come from.

    Attributes:
        name: as the user gave it.
        records: those of its latest run.
    """

    name: str
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Merged:
    """What several sources come to.

    Attributes:
        runs: records of each kind of machine, in the order of the joint plan.
        remarks: what a reader should know, a line each.
    """

    runs: Mapping[Machine, tuple[Record, ...]]
    remarks: tuple[str, ...]


class _Apart(NamedTuple):
    """What is not the same in two results of one trial."""

    name: str
    one: Any
    other: Any


@dataclass(frozen=True)
class _Found:
    source: str
    record: Record


def merge(sources: Mapping[str, Sequence[Record]]) -> Merged:
    """Join the latest runs of several record files.

    Args:
        sources: records in the order of their file, by name.

    Raises:
        UsageError: they do not belong together: another suite, data or settings, seeds that were added by looking, or
            two results of one trial; names the place and both sources.
    """
    found = [Source(name, tuple(map(dict, shown(records)))) for name, records in sorted(sources.items())]
    _one_suite(found)
    _one_experiment(found)
    alone = asks_for_quality_alone(found[0].records[-1])
    cells: dict[Machine, dict[Place, list[_Found]]] = defaultdict(lambda: defaultdict(list))
    for source in found:
        for record in source.records:
            cells[machine_of(record, quality_only=alone)][_place(record)].append(_Found(source.name, record))
    resolved = {machine: {place: _one(some) for place, some in there.items()} for machine, there in cells.items()}
    remarks = list(_versions(found))
    runs: dict[Machine, tuple[Record, ...]] = {}
    for machine in sorted(resolved):
        own = {place: record for place, record in resolved[machine].items() if BORROWED not in record}
        if own:
            mine = dict(own)
            for other in sorted(resolved):
                if other != machine and other.kind == machine.kind:
                    remarks += _fill(mine, machine, resolved[other], other)
            sharing = [one for one in found if _kinds(one) & {machine.kind}]
            runs[machine] = _planned(mine, sharing)
    return Merged(runs, tuple(dict.fromkeys(remarks)))


def _place(record: Mapping[str, Any]) -> Place:
    return str(record.get("dataset") or ""), str(record["arm"]), int(record["seed"])


def _kinds(source: Source) -> set[str]:
    return {str(record.get("device") or "").partition(":")[0] for record in source.records}


def _one_suite(sources: Sequence[Source]) -> None:
    first = sources[0]
    for source in sources:
        for name, what in (("name", "suite"), ("sha256", "version of the suite file: its sha256 is")):
            said = [str((one.records[-1].get("suite") or {}).get(name)) for one in (first, source)]
            if said[0] != said[1]:
                raise UsageError(f"another {what} {said[0][:40]!r} in {first.name}, {said[1][:40]!r} in {source.name}")
        if any((record.get("planned") or {}).get("looks") for record in source.records):
            raise UsageError(
                f"{source.name}: its seeds were added by looking at the results (--seeds auto), which holds its error "
                "rate for that run alone: only runs with fixed seeds can be joined"
            )


def _one_experiment(sources: Sequence[Source]) -> None:
    """The same data and settings under one name of an arm, wherever it ran."""
    seen: dict[tuple[str, str], _Found] = {}
    for source in sources:
        for record in source.records:
            dataset, arm, _ = _place(record)
            first = seen.setdefault((dataset, arm), _Found(source.name, record))
            where = f"{dataset}, {arm}" if dataset else arm
            both = f"in {first.source} and {source.name}"
            if (one := first.record.get("data")) and (other := record.get("data")) and one != other:
                raise UsageError(f"{where}: other data {both}: fingerprints {one[:12]} and {other[:12]}")
            old, new = (without_folders({"settings": r.get("settings") or {}}) for r in (first.record, record))
            changes = [path for path, *_ in settings_changes(old, new)]
            if changes:
                raise UsageError(f"{where}: other settings {both}: {listed(changes, most=3)}")


def _one(found: Sequence[_Found]) -> Record:
    """The record that counts of those of one trial on one kind of machine: an own one, ok if any is, the earliest.

    Raises:
        UsageError: they are two results.
    """
    for one, other in combinations(found, 2):
        what = _apart(one.record, other.record)
        if what:
            dataset, arm, seed = _place(one.record)
            raise UsageError(
                f"{f'{dataset}, ' if dataset else ''}{arm}, seed {seed}: {what.name} {what.one} in {one.source}, "
                f"{what.other} in {other.source}: one trial can't have two results; leave one of them out"
            )
    return min((one.record for one in found), key=_rank)


def _rank(record: Record) -> tuple[bool, bool, str, str]:
    rest = {name: value for name, value in record.items() if name not in {"planned", "device"}}
    text = json.dumps(rest, sort_keys=True)
    return BORROWED in record, record["status"] not in _CERTAIN, str(record.get("finished") or ""), text


def _apart(one: Record, other: Record) -> _Apart | None:
    """The first thing in which two results of one trial differ; a trial that the machine broke off has no result."""
    if not {one["status"], other["status"]} <= _CERTAIN:
        return None
    if one["status"] != other["status"]:
        return _Apart("status", one["status"], other["status"])
    mine, its = quality(one), quality(other)
    return next(
        (_Apart(key, mine[key], its[key]) for key in sorted(mine) if mine[key] != its.get(key, mine[key])), None
    )


def _fill(mine: dict[Place, Record], machine: Machine, theirs: Mapping[Place, Record], other: Machine) -> Iterator[str]:
    """Take over the quality of trials that another machine has, by seeds in which nothing contradicts it."""
    for dataset, seed in sorted({(dataset, seed) for dataset, _, seed in theirs}):
        there = {place: record for place, record in theirs.items() if (place[0], place[2]) == (dataset, seed)}
        missing = {place: record for place, record in there.items() if place not in mine}
        both = [(place[1], _apart(mine[place], record)) for place, record in sorted(there.items()) if place in mine]
        apart = [(arm, what) for arm, what in both if what]
        if missing and apart:
            arm, what = apart[0]
            yield (
                f"seed {seed} of {listed(arm for _, arm, _ in sorted(missing))} on {other.label} does not stand beside "
                f"{machine.label}: {arm} has another {what.name} there ({what.one}, {what.other})"
            )
        elif missing:
            taken = {place: r if BORROWED in r else borrowed(r, other) for place, r in missing.items()}
            mine.update(taken)


def _planned(mine: Mapping[Place, Record], sources: Sequence[Source]) -> tuple[Record, ...]:
    """The records of one machine under the joint plan, in its order."""
    plans = [source.records[-1].get("planned") or {} for source in sources]
    arms = _in_order([list(plan.get("arms") or ()) for plan in plans])
    seeds_of: dict[str, set[int]] = {arm: set() for arm in arms}
    for plan in plans:
        for arm in plan.get("arms") or ():
            seeds_of[arm] |= set((plan.get("seeds_of") or {}).get(arm, plan.get("seeds") or ()))
    for _, arm, seed in mine:
        seeds_of.setdefault(arm, set()).add(seed)
    seeds = sorted(set().union(*seeds_of.values()))
    planned: dict[str, Any] = {"arms": list(seeds_of), "seeds": seeds}
    datasets = _in_order([list(plan.get("datasets") or ()) for plan in plans])
    if datasets:
        planned["datasets"] = datasets
    if any(sorted(some) != seeds for some in seeds_of.values()):
        planned["seeds_of"] = {arm: sorted(some) for arm, some in seeds_of.items()}
    devices = {str(record.get("device") or "") for record in mine.values()}
    device = next(iter(devices)) if len(devices) == 1 else min(devices).partition(":")[0]
    joint = [{**record, "planned": planned, "device": device} for _, record in sorted(mine.items())]
    return tuple(map(dict, shown(joint)))


def _in_order(lists: Sequence[Sequence[str]]) -> list[str]:
    """All names, each list's order kept; by name where none says. All lists leave names out of one and the same."""
    graph: TopologicalSorter[str] = TopologicalSorter()
    for names in lists:
        for place, name in enumerate(names):
            graph.add(name, *names[max(0, place - 1) : place])
    try:
        graph.prepare()
    except CycleError as error:
        raise UsageError(
            f"merge: the plans list their arms or datasets in orders that contradict: {listed(error.args[1])}"
        ) from error
    ordered: list[str] = []
    ready: set[str] = set()
    while graph.is_active():
        ready |= set(graph.get_ready())
        name = min(ready)
        ready.remove(name)
        ordered.append(name)
        graph.done(name)
    # A placebo that no list has after the others' last arms.
    return sorted(ordered, key=lambda name: name == "placebo")


def _versions(sources: Sequence[Source]) -> Iterator[str]:
    """Versions that the sources do not share: told, as they are for a run that went on after an update."""
    for name in _VERSIONS:
        known: dict[str, set[str]] = defaultdict(set)
        for source in sources:
            for record in source.records:
                if value := (record.get("environment") or {}).get(name):
                    known[str(value)].add(source.name)
        if len(known) > 1:
            told = "; ".join(f"{value} in {listed(sorted(names))}" for value, names in sorted(known.items()))
            yield f"versions of {name} differ: {told}"
