"""Seeds where they are needed: which arms get more of them, by what the looks so far leave undecided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.contrasts import primary_of
from cnnbench.errors import UsageError
from cnnbench.frame import by_dataset
from cnnbench.quantities import quantities
from cnnbench.verdicts import kind_of, verdicts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cnnbench.plan import Plan
    from cnnbench.suite import Suite

SeedsOf = dict[str, tuple[int, ...]]
"""Seeds by arm."""


def check_primary(suite: Suite) -> None:
    """Say at once where no number of seeds could decide anything.

    Raises:
        UsageError: the primary metric is one that gets no verdict.
    """
    primary = quantities([suite.measure.primary], suite.measure.latency.batch_sizes)[0]
    if kind_of(primary) in {"apart", "percentile", "undirected"}:
        raise UsageError(
            f"--seeds auto: adds seeds until the primary metric is decided, and {suite.measure.primary} gets no "
            "verdict: expected another [measure] primary, or a number of seeds"
        )


def first_seeds(plan: Plan, looks: Sequence[int]) -> SeedsOf:
    """What every arm starts with: the seeds up to the first look.

    Args:
        plan: of all seeds that there may be.
        looks: numbers of seeds.
    """
    seeds = tuple(dict.fromkeys(t.trial.seed for t in plan.trials))
    return dict.fromkeys((t.trial.arm.name for t in plan.trials), seeds[: looks[0]])


def replayed(
    plan: Plan, looks: Sequence[int], known: Callable[[Plan], Sequence[Mapping[str, Any]] | None]
) -> tuple[SeedsOf, Sequence[Mapping[str, Any]] | None]:
    """The seeds of every arm at the look that a run stands at, by what is on disk.

    Args:
        plan: of all seeds that there may be.
        looks: numbers of seeds.
        known: the records of a part of the plan, None where one is missing.

    Returns:
        The seeds, and the records of all their trials where nothing is left to do; None where something is.
    """
    seeds_of = first_seeds(plan, looks)
    while (records := known(plan.part(seeds_of))) is not None:
        more = more_seeds(records, plan, seeds_of, looks)
        if more == seeds_of:
            break
        seeds_of = more
    return seeds_of, records


def at_most(plan: Plan, seeds_of: SeedsOf) -> SeedsOf:
    """The seeds that every arm may have in the end: an arm that the last look passed over has its number."""
    reached = max(map(len, seeds_of.values()))
    every = tuple(dict.fromkeys(t.trial.seed for t in plan.trials))
    return {name: every if len(own) == reached else own for name, own in seeds_of.items()}


def outcome(records: Sequence[Mapping[str, Any]], seeds_of: SeedsOf, looks: Sequence[int]) -> str:
    """How the looks have ended, in one clause: ``3 of 5 arms decided, 2 open at 12 seeds``.

    Args:
        records: of all trials, under one heading that names the looks.
        seeds_of: what every arm has.
        looks: numbers of seeds.
    """
    arms = {record["arm"] for record in records if record["role"] == "arm"}
    open_ = undecided(records)
    lost = arms - {record["arm"] for record in records if record["status"] == "ok"}
    reached = max((len(seeds_of[name]) for name in arms), default=0)
    done = len(arms) - len(open_) - len(lost)
    failed = f", {len(lost)} failed" if lost else ""
    if open_:
        return f"{done} of {len(arms)} arms decided{failed}, {len(open_)} open at {reached} seeds"
    how_many = f"{done} of {len(arms)} arms" if lost else f"all {len(arms)} arms" if len(arms) > 1 else "the arm"
    return f"{how_many} decided{failed} after {reached} of at most {looks[-1]} seeds"


def undecided(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The arms whose verdict on the primary metric is ``unresolved``, on one of the run's datasets at least.

    The placebo is none of them: it asks nothing. An arm without any pair of trials that are ok is none either: what
    failed under each of the first seeds is not worth more of them.

    Args:
        records: of all trials until now, under one heading that names the looks.
    """
    found: dict[str, None] = {}
    for trials in by_dataset(records).values():
        primary = primary_of(trials)
        judged = verdicts(trials, [primary]).judgements.get(primary.key, {})
        names = [name for name in judged if trials.roles[name] == "arm" and judged[name].verdict == "unresolved"]
        found |= dict.fromkeys(names)
    return list(found)


def more_seeds(records: Sequence[Mapping[str, Any]], plan: Plan, seeds_of: SeedsOf, looks: Sequence[int]) -> SeedsOf:
    """The seeds of every arm up to the next look; ``seeds_of`` as it is where nothing is left to do.

    More seeds go to the arms that are undecided and to those that they are compared with, up to the baseline, and to
    the placebo as many as to the baseline.

    Args:
        records: of all trials until now, under one heading that names the looks.
        plan: of all seeds that there may be.
        seeds_of: what every arm has.
        looks: numbers of seeds.
    """
    reached = max(map(len, seeds_of.values()))
    later = [look for look in looks if look > reached]
    if not later:
        return seeds_of
    arms = {t.trial.arm.name: t.trial.arm for t in plan.trials}
    wanted: dict[str, None] = {}
    for name in undecided(records):
        while name and name not in wanted:
            wanted[name] = None
            name = arms[name].against  # noqa: PLW2901 - from reference to reference, up to the baseline
    if any(arms[name].role == "baseline" for name in wanted):
        wanted |= dict.fromkeys(name for name, arm in arms.items() if arm.role == "placebo")
    seeds = tuple(dict.fromkeys(t.trial.seed for t in plan.trials))[: later[0]]
    return {name: seeds if name in wanted else own for name, own in seeds_of.items()}
