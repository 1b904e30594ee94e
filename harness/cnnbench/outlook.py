"""``cnnbench plan``: what a run would do, before anything runs."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from tabulate import tabulate

from cnnbench.adaptive import at_most, outcome, replayed
from cnnbench.drive import as_work, costs_of, first_trials
from cnnbench.environment import manifest
from cnnbench.ledger import Ledger
from cnnbench.plan import make_plan
from cnnbench.quantities import quantities
from cnnbench.seed_arithmetic import seed_lines
from cnnbench.stats.looks import looks_for
from cnnbench.superseded import superseded
from cnnbench.tally import total_time
from cnnbench.text import duration, listed
from cnnbench.time_budget import before, fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cnnbench.costs import Costs, Work
    from cnnbench.execute.cache import StageCache
    from cnnbench.keys import Place
    from cnnbench.plan import Plan, PlannedTrial
    from cnnbench.plugins import PluginHost
    from cnnbench.store import Store
    from cnnbench.suite import Suite


def outlook(
    suite: Suite,
    host: PluginHost,
    place: Place,
    store: Store,
    cache: StageCache,
    workers: int,
    only: Sequence[str] = (),
    effect: float | None = None,
    *,
    adaptive: bool = False,
    budget: float | None = None,
    warn: Callable[[str], object] = lambda _: None,
) -> str:
    """Arms, trials, stages after sharing, what is on disk already, what the rest may cost, and what seeds can show.

    Args:
        suite: validated.
        host: its plugins may skip trials.
        place: where it would run.
        store: of the suite's records.
        cache: of stages.
        workers: how many would work at a time.
        only: names of arms to keep; the baseline stays.
        effect: a difference in the primary metric, see ``seed_arithmetic.seed_lines``.
        adaptive: the suite's seeds are the most that an arm may get.
        budget: seconds that the run may take.
        warn: is told of lines of the records that are damaged.

    Raises:
        UsageError: ``only`` names an arm that the suite has not.
        DataError: the dataset is missing or corrupt.
    """
    plan = make_plan(suite, host, place, only)
    on_disk = store.read()
    for problem in on_disk.problems:
        warn(f"{store.path}: {problem}")
    every, environment = on_disk.records, {**manifest(place.device), **host.describe_environment()}
    records = {r["key"]: r for r in every if r["status"] == "ok"}
    recorded = {t.key for t in plan.trials if t.key in records}
    cached = cache.among(plan.stages)
    first = first_trials(t for t in plan.trials if t.skip is None and t.key not in recorded)
    wanted = set(first)
    seeds = len({t.trial.seed for t in plan.trials})
    arms = list({t.trial.arm.name: t.trial.arm for t in plan.trials}.values())
    columns = ", ".join(q.label for q in quantities(suite.measure.metrics, suite.measure.latency.batch_sizes))
    size = f"{_count(len(arms), 'arm')} x {_count(seeds, 'seed')}"
    if len(suite.datasets) > 1:
        size += f" x {len(suite.datasets)} datasets"
    looks = []
    to_enter = sum(t.skip is None and t.key not in recorded for t in plan.trials)
    ended = (
        f"nothing; {_count(to_enter, 'record')} to enter from the cache" if to_enter else "nothing; the table is ready"
    )
    if adaptive:
        size = f"at most {size}"
        stop = "arms that are decided get no more, which costs a little of the power told below"
        when = looks_for(seeds)
        looks = [f"looks: after {listed(when)} seeds; {stop}"]
        seeds_of, found = replayed(plan, when, lambda part: Ledger(suite, part, place, {}, store, when).known())
        if found is not None:
            wanted = set()
            ended = f"nothing: {outcome(found, seeds_of, when)}"
        else:
            wanted &= set(plan.part(at_most(plan, seeds_of)).stages)
    costs = costs_of(plan, every, environment)
    wanted -= cached
    to_run = [as_work(stage, first[key]) for key, stage in plan.stages.items() if key in wanted]
    in_budget = []
    if budget is not None:
        chosen = fit(plan, recorded, cached, costs, workers, budget)
        in_budget = [_at_most_in(budget) if adaptive else before(chosen, budget)]
    lines = [
        f"{suite.name}: {suite.question}",
        "",
        tabulate([[arm.name, arm.changes or "–"] for arm in arms], headers=["arm", "changes"], tablefmt="simple"),
        "",
        f"{size} = {_count(len(plan.trials), 'trial')} on {place.device}, {workers} at a time",
        f"columns: {columns}",
        _stages(plan, cached, recorded),
        f"to run: {_cost(to_run, costs, workers, adaptive=adaptive) or ended}",
        *filter(None, [superseded(plan, every, suite, place, environment)]),
        *in_budget,
        *looks,
        *seed_lines(suite, arms, every, effect, adaptive=adaptive),
    ]
    skips = Counter(f"{t.trial.arm.name}: {t.skip}" for t in plan.trials if t.skip)
    lines += [f"will be skipped: {reason} ({_count(count, 'trial')})" for reason, count in skips.items()]
    lines += [f"warning: {line}" for line in warnings_of(plan.trials)]
    return "\n".join(lines)


def warnings_of(trials: Sequence[PlannedTrial]) -> list[str]:
    """What plugins say of combinations of techniques, with the arms that it concerns."""
    arms: dict[str, dict[str, None]] = defaultdict(dict)
    for planned in trials:
        for text in planned.advice:
            arms[text][planned.trial.arm.name] = None
    return [f"{listed(names)}: {text}" for text, names in arms.items()]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _stages(plan: Plan, cached: set[str], recorded: set[str]) -> str:
    kinds = Counter(stage.kind for stage in plan.stages.values())
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    saved = plan.unshared - len(plan.stages)
    return (
        f"stages: {len(plan.stages)} ({listed}); sharing saves {saved}\n"
        f"on disk: {len(recorded)} of {len(plan.trials)} trials recorded, "
        f"{len(cached)} of {len(plan.stages)} stages cached"
    )


def _at_most_in(budget: float) -> str:
    return (
        f"time budget of {duration(budget)}: no seeds are added that would end later; the first look runs in any case"
    )


def _cost(to_run: Sequence[Work], costs: Costs, workers: int, *, adaptive: bool) -> str:
    """Wall time of what is left, by earlier records."""
    if not to_run:
        return ""
    much = ("at most " if adaptive else "") + _count(len(to_run), "stage")
    found = dict.fromkeys((work.kind, work.arm) for work in to_run)
    unknown = dict.fromkeys(kind for kind, arm in found if costs.expected(kind, arm) is None)
    if unknown:
        return f"{much}; no earlier record of this suite on this machine says how long {', '.join(unknown)} takes"
    needed = total_time(to_run, costs, workers)
    return f"{much}, about {duration(needed.seconds)} by this suite's earlier records" if needed else much
