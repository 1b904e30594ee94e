"""The ledger of a run: what its trials' stages come to as records, those recalled from disk among them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.carbon import co2
from cnnbench.migrations import SCHEMA
from cnnbench.plain import measure_plain, settings_plain
from cnnbench.references import BASELINE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cnnbench.execute.interface import Outcome
    from cnnbench.keys import Place
    from cnnbench.matrix import Trial
    from cnnbench.plan import Plan, PlannedTrial
    from cnnbench.store import Store
    from cnnbench.suite import Suite
    from cnnbench.types import EnergyOptions


class Ledger:
    """The records of one run's plan: those recalled from disk and those entered as trials end.

    Args:
        suite: what is run.
        plan: its trials.
        place: where it runs.
        environment: versions, hardware, threads.
        store: where records go.
        looks: numbers of seeds at which verdicts decide which arms get more; empty where all have the same seeds.
    """

    def __init__(
        self,
        suite: Suite,
        plan: Plan,
        place: Place,
        environment: Mapping[str, str],
        store: Store,
        looks: Sequence[int] = (),
    ) -> None:
        self._suite = suite
        self._plan = plan
        self._place = place
        self._environment = dict(environment)
        self._store = store
        self._records: dict[str, dict[str, Any]] = {}
        self._plain: dict[tuple[str, str], dict[str, Any]] = {}
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        arms = list(dict.fromkeys(t.trial.arm.name for t in plan.trials))
        self._planned: dict[str, Any] = {
            "arms": arms,
            "seeds": list(dict.fromkeys(t.trial.seed for t in plan.trials)),
        }
        datasets = list(dict.fromkeys(t.trial.dataset for t in plan.trials))
        if len(datasets) > 1:
            self._planned["datasets"] = datasets
        if looks:
            self._planned["looks"] = list(looks)
            self._planned["seeds_of"] = {
                arm: sorted({t.trial.seed for t in plan.trials if t.trial.arm.name == arm}) for arm in arms
            }

    @cached_property
    def _of_all(self) -> dict[str, Any]:
        """What all records of the suite say alike."""
        suite = self._suite
        file = Path(suite.file).name
        code = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(suite.code.items())}
        return {
            "suite": {
                "name": suite.name,
                "question": suite.question,
                "sha256": suite.sha256,
                "file": file,
                **({"code": code} if code else {}),
            },
            "design": None if suite.design is None else suite.design.plain([BASELINE, *(a.name for a in suite.arms)]),
            "measure": measure_plain(suite.measure),
            "statistics": suite.inference.plain(),
        }

    def _settings(self, trial: Trial) -> dict[str, Any]:
        """An arm's settings as plain data, one object for all its records."""
        name = (trial.dataset, trial.arm.name)
        if name not in self._plain:
            self._plain[name] = settings_plain(trial.arm.settings)
        return self._plain[name]

    def known(self) -> tuple[dict[str, Any], ...] | None:
        """The records of all trials but the skipped ones, if all are ok on disk already; nothing is written."""
        on_disk = {record["key"]: record for record in self._store.read().records if record["status"] == "ok"}
        due = [planned for planned in self._plan.trials if planned.skip is None]
        if any(planned.key not in on_disk for planned in due):
            return None
        energy = self._suite.measure.energy
        records = [{**on_disk[planned.key], **self._heading(planned)} for planned in due]
        return tuple({**record, **_with_co2(record, energy)} for record in records)

    def recall(self, *, fresh: bool, settled: Collection[str] = ()) -> frozenset[str]:
        """Keys of trials that are ok on disk already: none if ``fresh``. Trials that are skipped are entered.

        What the present suite says of them (names, order, margins) may have changed while the trial itself has not:
        such a record is entered again under the present heading, so that the file's end always describes one run.

        Args:
            fresh: run all again.
            settled: keys of trials that this very run has ended before, ok or not; they don't run again.
        """
        on_disk = {record["key"]: record for record in self._store.read().records}
        done: set[str] = set()
        for planned in self._plan.trials:
            record = on_disk.get(planned.key, {"status": None})
            heading = self._heading(planned)
            if planned.skip is not None:
                skipped = {"status": "skipped", "reason": planned.skip}
                if any(record.get(name) != value for name, value in {**heading, **skipped}.items()):
                    record = self._write(planned, skipped)
            elif planned.key not in settled and (record["status"] != "ok" or fresh):
                continue
            else:
                done.add(planned.key)
                if any(record.get(name) != value for name, value in heading.items()):
                    record = {**record, **heading, **_with_co2(record, self._suite.measure.energy)}
                    self._store.append(record)
            self._records[planned.key] = record
            self._store.hold(record)
        return frozenset(done)

    def enter(self, planned: PlannedTrial, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
        """Record a trial from the outcomes of its stages."""
        known = [(kind, outcomes[key]) for kind, key in planned.stages.items() if key in outcomes]
        bad = next(((kind, outcome) for kind, outcome in known if outcome.status != "ok"), None)
        body: dict[str, Any] = {"status": "ok", "reason": None, "trace": None}
        if bad is not None:
            kind, outcome = bad
            body = {"status": outcome.status, "reason": f"{kind}: {outcome.reason}", "trace": outcome.trace}
        merged = _merged([outcome.result for _, outcome in known])
        notes = [note for _, outcome in known for note in outcome.result.get("notes", ())]
        notes += planned.advice
        if bad is not None:
            # What was measured before the fault is kept apart: a table must not show half a trial.
            merged = {
                "metrics": {},
                "methods": {},
                "details": {"partial": {"metrics": merged["metrics"], **merged["details"]}},
            }
        else:
            merged = _with_co2(merged, self._suite.measure.energy)
        merged["details"]["notes"] = list(dict.fromkeys(notes))
        seconds = {kind: outcome.result.get("seconds", outcome.seconds) for kind, outcome in known}
        workers = merged["details"].pop("workers", None)
        try:
            return self._write(planned, {**body, **merged, "workers": workers, "seconds": seconds})
        except ValueError as error:  # what a plugin has returned: nothing that reads records could make sense of it
            reason = f"what it found can't be recorded: {error}"
            return self._write(planned, {"status": "failed", "reason": reason})

    def count(self) -> tuple[int, int]:
        """Trials recorded, and planned."""
        return len(self._records), len(self._plan.trials)

    def records(self) -> tuple[dict[str, Any], ...]:
        """All records in the order of the plan."""
        return tuple(self._records[t.key] for t in self._plan.trials if t.key in self._records)

    def _heading(self, planned: PlannedTrial) -> dict[str, Any]:
        """What a record says of its suite and arm, all of it known before the trial runs."""
        arm, of_all = planned.trial.arm, self._of_all
        recipe = arm.settings.recipe
        return {
            "suite": of_all["suite"],
            "arm": arm.name,
            "role": arm.role,
            "reference": arm.against or None,
            "dataset": planned.trial.dataset,
            "changes": arm.changes,
            "planned": self._planned,
            "design": of_all["design"],
            "measure": of_all["measure"],
            "statistics": of_all["statistics"],
            "budget": f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)}, batch {recipe.batch_size}",
        }

    def _write(self, planned: PlannedTrial, body: Mapping[str, Any]) -> dict[str, Any]:
        record = {
            "schema": SCHEMA,
            "key": planned.key,
            **self._heading(planned),
            "seed": planned.trial.seed,
            "data": planned.data,
            "reason": None,
            "trace": None,
            "metrics": {},
            "methods": {},
            "details": {},
            "seconds": {},
            **body,
            "settings": self._settings(planned.trial),
            "stages": dict(planned.stages),
            "device": self._place.device,
            "environment": self._environment,
            "started": self._started,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self._store.append(record)
        self._records[planned.key] = record
        return record


def _with_co2(body: Mapping[str, Any], energy: EnergyOptions) -> dict[str, dict[str, Any]]:
    """Metrics, methods and details of a trial with the CO2 of its energy on the suite's grid."""
    found = co2(body["metrics"], body["methods"], energy)
    details = {
        name: {**value, "intensity": found.intensity} if name in {"energy", "energy_train"} else value
        for name, value in body["details"].items()
    }
    return {
        "metrics": {**body["metrics"], **found.metrics},
        "methods": {**body["methods"], **found.methods},
        "details": details,
    }


_SUMS = ("train_seconds", "energy_train_j")
_PEAKS = ("memory_train_mib",)
_WEAKEST = ("estimated", "unknown", "shared", "measured")
"""How an energy was obtained; a sum is as weak as its weakest part."""


def _merged(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Metrics, methods and details of a trial's stages together.

    What it costs to come by a model is what its training cost and what its compressors' own trainings cost.
    """
    merged: dict[str, dict[str, Any]] = {"metrics": {}, "methods": {}, "details": {}}
    for result in results:
        metrics, methods = dict(result.get("metrics", {})), dict(result.get("methods", {}))
        for key in _SUMS:
            if key in metrics and key in merged["metrics"]:
                metrics[key] += merged["metrics"][key]
        for key in _PEAKS:
            metrics.update({key: max(metrics[key], merged["metrics"].get(key, 0))} if key in metrics else {})
        for key in methods.keys() & merged["methods"].keys():
            methods[key] = min(methods[key], merged["methods"][key], key=_WEAKEST.index)
        merged["metrics"] |= metrics
        merged["methods"] |= methods
        merged["details"] |= result.get("details", {})
    return merged
