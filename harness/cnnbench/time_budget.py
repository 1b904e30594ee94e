"""What of a run fits into a limited time: whole seeds over all arms, so that comparisons stay balanced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnbench.drive import as_work, first_trials
from cnnbench.tally import total_time
from cnnbench.text import duration, printable, seeds_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from cnnbench.costs import Costs, Work
    from cnnbench.plan import Plan, PlannedTrial


@dataclass(frozen=True)
class Fit:
    """What to run now.

    Attributes:
        run: trials that fit, or that run all the same because nothing smaller would be of use; none where a whole seed
            is there already and another does not fit.
        left: open trials that don't.
        seeds: how many whole seeds ``run`` has; 0 where it is a part of one.
        seconds: what it may take, or ``following`` in its place; None where that is not known.
        following: where nothing runs, what is missing of the next seed.
    """

    run: tuple[PlannedTrial, ...]
    left: tuple[PlannedTrial, ...]
    seeds: int
    seconds: float | None
    following: tuple[PlannedTrial, ...] = ()

    def fits(self, room: float) -> bool:
        """Whether it has whole seeds that take no more than so many seconds, as far as one knows."""
        return self.seeds > 0 and self.seconds is not None and self.seconds <= room


def most_that_fit(seconds: Callable[[int], float], most: int, room: float) -> int:
    """The largest number of things, at most ``most``, that take no more than ``room`` seconds.

    Args:
        seconds: that so many take, the first ones; never less for more of them.
        most: how many there are.
        room: seconds.
    """
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if seconds(middle) <= room:
            low = middle
        else:
            high = middle - 1
    return low


def fit(
    plan: Plan,
    done: Collection[str],
    cached: Collection[str],
    costs: Costs,
    workers: int,
    room: float,
    *,
    guess: bool = False,
) -> Fit:
    """Choose what to run of a plan.

    As many whole seeds over all arms as fit, in the order of the seeds. Where not even one does: nothing if some seed
    is complete, for a part of another adds nothing to a table; else of the first seed the baseline, though it may not
    fit either, and then arm by arm what fits. Where the cost of some stage of that seed has never been seen, that seed:
    whoever measures it knows about the rest.

    Args:
        plan: of all seeds.
        done: keys of trials that need nothing any more.
        cached: keys of stages whose result is on disk.
        costs: what stages take.
        workers: stages at once.
        room: seconds.
        guess: what has never been seen, as after a seed in which an arm failed, costs what it does in other arms.
    """
    due = [t for t in plan.trials if t.skip is None and t.key not in done]
    open_seeds = {t.trial.seed for t in due}
    seeds = [seed for seed in dict.fromkeys(t.trial.seed for t in plan.trials) if seed in open_seeds]

    def seconds(trials: Sequence[PlannedTrial]) -> float:
        return needed(plan, trials, cached, costs, workers)

    def of_seeds(count: int) -> list[PlannedTrial]:
        kept = set(seeds[:count])
        return [t for t in due if t.trial.seed in kept]

    if not seeds:
        return Fit((), (), 0, 0.0)
    chosen = of_seeds(1)
    known = guess or all(costs.exact(one.kind, one.arm) for one in _work(plan, of_seeds(1), cached))
    count = 1
    if known:
        count = most_that_fit(lambda n: seconds(of_seeds(n)), len(seeds), room)
        chosen = of_seeds(count)
    if not count and _some_seed_complete(plan, done):
        return Fit((), tuple(due), 0, seconds(of_seeds(1)), tuple(of_seeds(1)))
    if not count:
        arms = list(dict.fromkeys(t.trial.arm.name for t in plan.trials))  # the baseline first
        by_arm = sorted(of_seeds(1), key=lambda t: arms.index(t.trial.arm.name))
        names = list(dict.fromkeys(t.trial.arm.name for t in by_arm))

        def of_arms(number: int) -> list[PlannedTrial]:
            return [t for t in by_arm if t.trial.arm.name in names[:number]]

        chosen = of_arms(max(1, most_that_fit(lambda n: seconds(of_arms(n)), len(names), room)))
    keys = {t.key for t in chosen}
    left = tuple(t for t in due if t.key not in keys)
    return Fit(tuple(chosen), left, count, seconds(chosen) if known else None)


def _some_seed_complete(plan: Plan, done: Collection[str]) -> bool:
    """Whether all trials of some seed are done that are not skipped."""
    of_seed: dict[int, bool] = {}
    for t in plan.trials:
        if t.skip is None:
            of_seed[t.trial.seed] = of_seed.get(t.trial.seed, True) and t.key in done
    return any(of_seed.values())


def needed(plan: Plan, trials: Iterable[PlannedTrial], cached: Collection[str], costs: Costs, workers: int) -> float:
    """Seconds that some trials of a plan take, as far as one knows."""
    time = total_time(_work(plan, trials, cached), costs, workers)
    return 0.0 if time is None else time.seconds


def _work(plan: Plan, trials: Iterable[PlannedTrial], cached: Collection[str]) -> list[Work]:
    """The stages of some trials that have to run."""
    return [as_work(plan.stages[key], t) for key, t in first_trials(trials).items() if key not in cached]


def before(found: Fit, budget: float) -> str:
    """What is going to run within a budget of so many seconds, for people."""
    limit = f"time budget of {duration(budget)}"
    if not found.run and not found.left:
        return f"{limit}: nothing is left to run"
    if found.seconds is None:
        return f"{limit}: what this takes is not known yet; {trials_text(found.run)} go first, to measure it"
    left = f"; left out: {trials_text(found.left)}" if found.left else ""
    if not found.run:
        following = trials_text(found.following)
        return f"{limit}: no further seed of all arms fits: {following} may take {duration(found.seconds)}{left}"
    if not left and found.seeds:
        return f"{limit}: all {len(found.run)} trials fit, about {duration(found.seconds)}"
    what = trials_text(found.run)
    if not found.seeds:
        what = f"not even one seed of all arms fits; {what}"
    return f"{limit}: {what} may take {duration(found.seconds)}{left}"


def trials_text(trials: Sequence[PlannedTrial]) -> str:
    """Trials in short: ``12 trials (seeds 0-2 of 4 arms)``."""
    arms = list(dict.fromkeys(t.trial.arm.name for t in trials))
    seeds = sorted({t.trial.seed for t in trials})
    whose = printable(arms[0]) if len(arms) == 1 else f"{len(arms)} arms"
    return f"{len(trials)} trial{'s' * (len(trials) != 1)} ({seeds_text(seeds)} of {whose})"
