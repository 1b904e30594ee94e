"""``cnnbench try``: techniques on a small task, what they change in the model, and what a training step costs."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cnnbench import try_report
from cnnbench.devices import resolve
from cnnbench.module_diff import compare_models
from cnnbench.runner import RunOptions, run_suite
from cnnbench.step_cost import step_costs
from cnnbench.text import duration
from cnnbench.try_cost import THREADS, acts_in_training
from cnnbench.try_fit import STREAMS, Fitter, unusable
from cnnbench.try_operate import OPERATING, operate
from cnnbench.try_suite import arms_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cnnbench.progress import Progress
    from cnnbench.targets import Target
    from cnnbench.try_fit import Asked, Fault, Trial

MOST = 6
"""Techniques of one call; more would take minutes."""
COST_SECONDS = 3.0
"""For timing steps, an arm."""


@dataclass(frozen=True)
class Outcome:
    """How a try ended.

    Attributes:
        fine: every technique could be tried, and every trial worked.
        suite: the suite that ran, as text; None where none did.
    """

    fine: bool
    suite: str | None


@dataclass(frozen=True)
class Attempt:
    """A try of some techniques.

    Attributes:
        target: whose techniques.
        asked: what they are tried on.
        file: where the suite would lie, or is to be written.
        cache: folder for results of stages, which a second try finds there.
        executor: runs the stages.
        say: takes each section, as soon as it is known.
        progress: shows the run.
    """

    target: Target
    asked: Asked
    file: Path
    cache: Path
    executor: str
    say: Callable[[str], None]
    progress: Callable[[], Progress]

    def run(self) -> Outcome:
        """Try them."""
        began = time.monotonic()
        registry = self.target.host.registry
        found = self.target.entries[:MOST]
        if len(self.target.entries) > MOST:
            count = len(self.target.entries)
            self.say(f"{self.target.name} has {count} techniques; these are the first {MOST}: name others one by one")
        checked = [(entry, unusable(entry, registry)) for entry in found]
        self._tell_of([fault for _, fault in checked if fault])
        entries = [entry for entry, fault in checked if fault is None]
        if not entries:
            return Outcome(fine=False, suite=None)
        fitter = Fitter(self.asked, self.file, self._plugins(), registry)
        fitter.check_asked()
        for entry in entries:
            self.say(try_report.summary(entry))
        compared = [entry for entry in entries if entry.card.slot not in OPERATING]
        operating = [entry for entry in entries if entry.card.slot in OPERATING]
        fine = len(entries) == len(found)
        text = None
        with TemporaryDirectory(prefix="cnnbench-") as folder:
            if compared:
                trial = fitter.fit(compared)
                self._tell_of(trial.faults)
                fine &= not trial.faults
                if trial.entries:
                    text = fitter.text(trial.entries, trial.base)
                    fine &= self._compare(trial, fitter, Path(folder) / "try")
            if operating:
                fine &= operate(operating, self.target.host, fitter, Path(folder), self.say)
        self.say(f"took {duration(time.monotonic() - began)}")
        return Outcome(fine, text)

    def _compare(self, trial: Trial, fitter: Fitter, results: Path) -> bool:
        """Run the suite, between what is known before and after it."""
        suite = fitter.suite(trial.entries, trial.base)
        device = resolve(suite.device)
        self.say(try_report.heading(suite, trial.data, str(device), fitter.registry))
        for entry in trial.entries:
            if entry.card.slot == "dataset":
                label = next(one.label for one in suite.datasets if one.choice.name == entry.card.name)
                self.say(try_report.data_facts(entry.card.name, trial.data[label]))
        techniques = arms_of(trial.entries)
        for name, arm in trial.arms.items():
            self.say(try_report.modules(name, techniques[name], compare_models(arm.before, arm.model)))
        options = RunOptions(results=results, cache=self.cache, executor=self.executor)
        summary = run_suite(suite, self.target.host, options, self.progress())
        self.say(try_report.table(summary.records))
        self.say("\n".join([*try_report.compressing(summary.records), try_report.verdict(summary.records)]))
        timed = {name: arm.builder for name, arm in trial.arms.items() if acts_in_training(techniques[name])}
        failed = {record["arm"] for record in summary.records if record["status"] != "ok"}
        timed = {name: builder for name, builder in timed.items() if name not in failed}
        if timed:
            found = step_costs(trial.baseline, timed, STREAMS, COST_SECONDS * len(timed), THREADS)
            self.say(try_report.cost(found, THREADS, str(device)))
        return summary.clean

    def _plugins(self) -> list[str]:
        """The target's plugins as the suite has to name them, from where it lies."""
        folder = self.file.absolute().parent
        return [
            os.path.relpath(plugin.file, folder) if plugin.name.endswith(".py") else plugin.name
            for plugin in self.target.plugins
        ]

    def _tell_of(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            self.say(try_report.fault(fault))
