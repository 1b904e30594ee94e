"""Drives a scheduler to its end: records trials, learns what stages cost, and tells everyone who listens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.costs import Work, arm_of, earlier_costs
from cnnbench.execute.interface import Epoch, Placed
from cnnbench.execute.scheduler import Ended, Started, TrialEnded
from cnnbench.plain import settings_plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cnnbench.costs import Costs
    from cnnbench.execute.scheduler import Scheduler
    from cnnbench.ledger import Ledger
    from cnnbench.plan import Plan, PlannedTrial, Stage
    from cnnbench.plugins import PluginHost
    from cnnbench.progress import Progress


def drive(
    scheduler: Scheduler,
    to_run: Sequence[PlannedTrial],
    ledger: Ledger,
    host: PluginHost,
    progress: Progress,
    workers: int,
    costs: Costs,
) -> None:
    """Run all stages of some trials.

    Args:
        scheduler: of a plan with these trials.
        to_run: those that are not on record.
        ledger: where they are entered.
        host: its observers are told.
        progress: is told.
        workers: stages at once.
        costs: what stages take; learns from those that end well.
    """
    first = first_trials(to_run)
    several = len({t.trial.dataset for t in to_run}) > 1
    begun: set[str] = set()
    work = {stage.key: as_work(stage, first[stage.key]) for stage in scheduler.pending()}
    progress.start(list(work.values()), workers, costs, *ledger.count())
    try:
        for event in scheduler.run():
            if isinstance(event, Started):
                trial = first[event.stage.key]
                if trial.key not in begun:
                    begun.add(trial.key)
                    host.trial_started(_brief(trial))
                progress.stage_started(work[event.stage.key])
            elif isinstance(event, Placed):
                progress.stage_placed(work[event.key], event.where)
            elif isinstance(event, Epoch):
                about = work[event.key]
                host.epoch_finished({**_brief(first[event.key]), "stage": about.kind}, event.progress)
                progress.stage_advanced(about, event.progress["epoch"] + 1, event.progress["epochs"])
            elif isinstance(event, Ended):
                about = work[event.stage.key]
                if event.outcome.status == "ok" and not event.cached:  # only time spent on success tells of the rest
                    costs.learn(about.kind, about.arm, event.outcome.seconds)
                progress.stage_finished(about)
            elif isinstance(event, TrialEnded):
                record = ledger.enter(event.planned, scheduler.outcomes)
                host.trial_finished(record)
                done, planned = ledger.count()
                arm = f"{record['dataset']}, {record['arm']}" if several else record["arm"]
                progress.trial_finished(arm, record["seed"], record["status"], record["reason"], done, planned)
    finally:
        progress.finish()


def costs_of(plan: Plan, records: Sequence[Mapping[str, Any]], machine: Mapping[str, str]) -> Costs:
    """What stages of a plan's arms took in earlier records; see ``costs.earlier_costs``.

    Args:
        plan: with the arms as they are now.
        records: of the suite.
        machine: the present environment.
    """
    named = {arm_of(record) for record in records}
    arms = {(t.trial.dataset, t.trial.arm.name): t.trial.arm.settings for t in plan.trials}
    return earlier_costs(records, {arm: settings_plain(own) for arm, own in arms.items() if arm in named}, machine)


def first_trials(trials: Iterable[PlannedTrial]) -> dict[str, PlannedTrial]:
    """The first trial that needs a stage, by the stage's key: it stands for all of them."""
    first: dict[str, PlannedTrial] = {}
    for planned in trials:
        for key in planned.stages.values():
            first.setdefault(key, planned)
    return first


def as_work(stage: Stage, planned: PlannedTrial) -> Work:
    """A stage as viewers see it.

    Args:
        stage: of the plan.
        planned: the first trial that needs it.
    """
    arm = (planned.trial.dataset, planned.trial.arm.name)
    return Work(stage.key, stage.kind, stage.label, arm, stage.session, stage.exclusive)


def _brief(planned: PlannedTrial) -> dict[str, Any]:
    trial = planned.trial
    return {"key": planned.key, "dataset": trial.dataset, "arm": trial.arm.name, "seed": trial.seed}
