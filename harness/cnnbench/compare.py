"""Two runs of one suite against each other: what regressed, what improved, and what can't be told.

By whom a timing is judged. A trial whose stage has one key in both runs was computed by the same code on the same kind
of machine, so its shift is the machine's and no regression; nor is that of a network which is the same while what
measures it changed. An arm whose reference is such a trial is judged by the ratio to it, which no drift touches. Where
the reference's code changed too, a shift of the ratio may be the reference's: the arm must be slower by itself as well.

The reference itself, and an arm without one, is judged by its own time. A machine that drifted between the runs moves
all arms alike, and so does slower code that they share, such as a layer of the baseline or another torch: nothing in
two runs tells these apart. It counts as a regression, since one that is hidden costs more than one that is looked into,
and the row says what else it may be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from cnnbench.errors import UsageError
from cnnbench.evidence import Evidence, gather
from cnnbench.pairs import Pair, pairs
from cnnbench.quantities import METRICS, quantities
from cnnbench.stats.multiplicity import holm
from cnnbench.tolerances import DEFAULTS, DRIFTING, EXACT, OF_THE_MACHINE, Tolerance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cnnbench.frame import TrialSet
    from cnnbench.quantities import Quantity

LEVEL = 0.05
"""Chance of even one false verdict among all comparisons of one call."""

Verdict = Literal["regressed", "improved", "no change shown", "not compared", "shown only"]
_BROKEN = frozenset({"failed", "diverged", "timeout", "crashed", "oom"})
SAME_CODE = "same code"
SAME_NETWORK = "same network"
SHARED = "or the machine's doing: every arm moved alike"
NOWHERE = "in neither run"


@dataclass(frozen=True)
class Comparison:
    """One quantity of one arm, before and after.

    Attributes:
        arm: its name.
        metric: the quantity's name in suites.
        quantity: unit and direction.
        verdict: what may be said.
        reason: why not more, or what it rests on; empty where there is nothing to add.
        tolerance: what decided; None where nothing did.
        evidence: the figures; None where no trials could be compared.
        p: two-sided, after Holm's correction; None where it took no part in that.
    """

    arm: str
    metric: str
    quantity: Quantity
    verdict: Verdict
    reason: str = ""
    tolerance: Tolerance | None = None
    evidence: Evidence | None = None
    p: float | None = None

    @property
    def by_itself(self) -> bool:
        """It was judged by a figure of the machine's and by no ratio, so that a machine that drifted may decide."""
        return self.p is not None and self.metric in DRIFTING and self.evidence is not None and not self.evidence.beside


@dataclass(frozen=True)
class Trials:
    """Trials of an arm that ended otherwise than before.

    Attributes:
        arm: its name.
        seeds: which.
        before, after: their statuses.
        reason: as the records after say.
        verdict: ``regressed`` where they were ok and broke, ``improved`` the other way round.
    """

    arm: str
    seeds: tuple[int, ...]
    before: str
    after: str
    reason: str
    verdict: Verdict


@dataclass(frozen=True)
class Result:
    """All that a comparison of two runs says.

    Attributes:
        before, after: the runs.
        arms: pairs of trials by arm, of arms that both have.
        comparisons: arm by arm, in the order of the run after.
        trials: those that ended otherwise.
    """

    before: TrialSet
    after: TrialSet
    arms: Mapping[str, Sequence[Pair]]
    comparisons: tuple[Comparison, ...]
    trials: tuple[Trials, ...]

    @property
    def regressions(self) -> int:
        """How many there are."""
        verdicts = [*(one.verdict for one in self.comparisons), *(one.verdict for one in self.trials)]
        return verdicts.count("regressed")

    @property
    def explained(self) -> bool:
        """There are regressions, and a machine that drifted would explain them all."""
        found = [one.reason for one in self.comparisons if one.verdict == "regressed"]
        return bool(found) and set(found) == {SHARED} and not any(one.verdict == "regressed" for one in self.trials)


def metrics_of(*runs: TrialSet) -> list[str]:
    """Metrics that the runs were asked for, by their names in suites, in order."""
    names: dict[str, None] = {}
    for run in runs:
        measure = run.heading.get("measure") or {}
        primary = str(measure.get("primary") or "accuracy")
        listed = list(measure.get("metrics") or [primary])
        names.update(dict.fromkeys(listed if primary in listed else [primary, *listed]))
    return list(names)


def compare(before: TrialSet, after: TrialSet, tolerances: Mapping[str, Tolerance] = DEFAULTS) -> Result:
    """Compare all arms that two runs have in common.

    Args:
        before: the run to compare with.
        after: the run in question.
        tolerances: by metric; a metric without one is shown and decides nothing.

    Raises:
        UsageError: they have no arm in common.
    """
    arms = pairs(before, after)
    if not arms:
        raise UsageError(
            f"no arm in common: before has {', '.join(before.arms[:5])}; after has {', '.join(after.arms[:5])}"
        )
    recorded = {key for run in (before, after) for r in run.records.values() for key in r.get("metrics") or ()}
    columns = [
        (metric, quantity)
        for metric in metrics_of(before, after)
        for quantity in quantities([metric], _batch_sizes(before, after))
        if quantity.key in recorded
    ]
    undecided = [_compared(arm, *column, arms, tolerances.get(column[0])) for arm in arms for column in columns]
    undecided = [one for one in undecided if one.reason != NOWHERE]
    trials = tuple(found for arm in arms for found in _trials(arm, arms[arm]))
    return Result(before, after, arms, tuple(_questioned(list(_decided(undecided)))), trials)


def _batch_sizes(*runs: TrialSet) -> list[int]:
    asked = [((run.heading.get("measure") or {}).get("latency") or {}).get("batch_sizes") or [1] for run in runs]
    return list(dict.fromkeys(size for sizes in asked for size in sizes))


def _compared(
    arm: str, metric: str, quantity: Quantity, arms: Mapping[str, Sequence[Pair]], tolerance: Tolerance | None
) -> Comparison:
    """Everything but the verdicts that all comparisons make together: those stay ``no change shown``."""
    ok = [pair for pair in arms[arm] if pair.ok]
    refused = [_refused(pair, metric, quantity) for pair in ok]
    fit = [pair for pair, why in zip(ok, refused, strict=True) if not why]
    nothing = Comparison(arm, metric, quantity, "not compared", tolerance=tolerance)
    if not fit:
        return replace(nothing, reason=next(iter(refused), "no seed is ok in both"))
    evidence = gather(fit, metric, quantity, arms)
    if evidence is None:
        return replace(nothing, reason=_absent(fit, quantity))
    found = replace(nothing, evidence=evidence)
    if tolerance is None or quantity.better == "neither" or metric not in METRICS:
        return replace(found, verdict="shown only", tolerance=None)
    if metric in OF_THE_MACHINE and all(pair.same_code(quantity.stage) for pair in evidence.pairs):
        return replace(found, verdict="no change shown", reason=SAME_CODE)
    if metric in OF_THE_MACHINE and all(pair.same_code(quantity.stage) or pair.same_network for pair in evidence.pairs):
        return replace(found, verdict="no change shown", reason=SAME_NETWORK)
    if any(shift.error is None for shift in evidence.deciding):
        return replace(
            found,
            reason=f"{len(evidence.pairs)} {'seed gives' if len(evidence.pairs) == 1 else 'seeds give'} no interval",
        )
    return replace(found, verdict="no change shown")


def _refused(pair: Pair, metric: str, quantity: Quantity) -> str:
    """Why a pair of trials can't be compared in a quantity, or an empty string."""
    if why := pair.another_experiment:
        return why
    ways = [str((record.get("methods") or {}).get(quantity.key) or "") for record in (pair.before, pair.after)]
    if any("estimated" in way for way in ways):
        return "estimated from time alone: see latency"
    if ways[0] != ways[1]:
        return f"obtained in another way ({ways[0] or 'unnamed'}, {ways[1] or 'unnamed'})"
    return pair.other_machine(quantity) if metric in OF_THE_MACHINE else ""


def _absent(fit: Sequence[Pair], quantity: Quantity) -> str:
    before = any(quantity.key in (pair.before.get("metrics") or {}) for pair in fit)
    after = any(quantity.key in (pair.after.get("metrics") or {}) for pair in fit)
    return "only before" if before else "only after" if after else NOWHERE


def _decided(undecided: Sequence[Comparison]) -> Iterator[Comparison]:
    """The verdicts, corrected by Holm for the comparisons that could go either way by chance."""
    chances: dict[int, tuple[float, float]] = {}
    for place, one in enumerate(undecided):
        if one.verdict == "no change shown" and not one.reason:
            assert one.evidence is not None
            assert one.tolerance is not None
            if not _nothing_moved(one.evidence, one.quantity):
                chances[place] = _chances(one.evidence, one.quantity, one.tolerance)
    # What has no noise needs no correction, and must not make that of the others stricter.
    noisy = [place for place in chances if undecided[place].metric not in EXACT]
    adjusted = dict(zip(noisy, holm([min(1.0, 2 * min(chances[place])) for place in noisy]), strict=True))
    for place, one in enumerate(undecided):
        if place not in chances:
            yield one
            continue
        worse, better = chances[place]
        alone = 2 * min(worse, better)
        p = adjusted.get(place)
        if (alone if p is None else p) < LEVEL:
            yield replace(one, verdict="regressed" if worse < better else "improved", p=p)
        elif alone < LEVEL:
            yield replace(one, p=p, reason=f"beyond the tolerance by itself, not among {len(noisy)} comparisons")
        else:
            yield replace(one, p=p)


def _questioned(decided: Sequence[Comparison]) -> Iterator[Comparison]:
    """With a word at verdicts that the machine may have brought about."""
    for one in decided:
        if one.by_itself and one.verdict in {"regressed", "improved"}:
            others = [other for other in decided if other.quantity == one.quantity and other.arm != one.arm]
            apart = [_apart(one, other) for other in others if other.evidence is not None]
            assert one.evidence is not None
            if apart and max(apart) < abs(_factor(one.evidence)) / 2:
                yield replace(one, reason=SHARED)
                continue
        yield one


def _apart(one: Comparison, other: Comparison) -> float:
    """By how much another arm moved more or less than this one, on the logarithmic scale."""
    assert one.evidence is not None
    assert other.evidence is not None
    if other.evidence.beside is not None and other.evidence.reference == one.arm:
        return abs(other.evidence.beside.mean)
    return abs(_factor(other.evidence) - _factor(one.evidence))


def _factor(evidence: Evidence) -> float:
    """Logarithm of the factor by which an arm moved; infinite where there is none."""
    if evidence.logarithmic:
        return evidence.shift.mean
    return math.log(evidence.after / evidence.before) if min(evidence.before, evidence.after) > 0 else math.inf


def _nothing_moved(evidence: Evidence, quantity: Quantity) -> bool:
    """Same code and same values: nothing that chance could have moved."""
    return evidence.shift.mean == 0 == evidence.shift.error and all(p.same_code(quantity.stage) for p in evidence.pairs)


def _chances(evidence: Evidence, quantity: Quantity, tolerance: Tolerance) -> tuple[float, float]:
    """One-sided p-values of "not worse by more than the tolerance" and of "not better by more"."""
    up, down = _limits(evidence, tolerance)
    risen = max(shift.p_above(up) for shift in evidence.deciding)
    fallen = max(shift.p_below(-down) for shift in evidence.deciding)
    return (risen, fallen) if quantity.better == "lower" else (fallen, risen)


def _limits(evidence: Evidence, tolerance: Tolerance) -> tuple[float, float]:
    """How far the shift may go up and down, in its own scale."""
    if not evidence.logarithmic:
        amount = tolerance.amount * abs(evidence.before) if tolerance.relative else tolerance.amount
        return amount, amount
    share = tolerance.amount if tolerance.relative else tolerance.amount / evidence.before
    return math.log1p(share), -math.log1p(-share) if share < 1 else math.inf


def _trials(arm: str, all_pairs: Sequence[Pair]) -> Iterator[Trials]:
    """Trials whose status changed from or to ok, those alike together."""
    changed: dict[tuple[str, str], list[Pair]] = {}
    for pair in all_pairs:
        statuses = (str(pair.before["status"]), str(pair.after["status"]))
        if "ok" in statuses and statuses[0] != statuses[1]:
            changed.setdefault(statuses, []).append(pair)
    for (old, new), some in changed.items():
        verdict: Verdict = "not compared"
        if old in _BROKEN:
            verdict = "improved"
        elif new in _BROKEN:
            verdict = "regressed"
        reason = str((some[0].before if new == "ok" else some[0].after).get("reason") or "")
        yield Trials(arm, tuple(pair.seed for pair in some), old, new, reason, verdict)
