"""Trackers: told of a small run through the hooks, as a run tells them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.errors import BrokenContract
from cnnbench.plugins import PluginHost
from cnnbench.registry import Owner
from cnnbench.store import Store
from cnnbench.testing.compare import copied
from cnnbench.testing.records import ARMS, SEEDS, progress, records
from cnnbench.testing.use import PLAIN, Situation, Use

if TYPE_CHECKING:
    from cnnbench.testing.subject import Subject

situations = (PLAIN,)


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:  # noqa: ARG001 - as all slots have it
    """Tell its observer of a run from the plan to the end."""
    made = records()
    with tempfile.TemporaryDirectory(dir=subject.folder, ignore_cleanup_errors=True) as folder:
        results = Path(folder) / "results"
        store = Store(results)
        for record in made:
            store.append(record)
        suite = made[0]["suite"]
        facts = {
            "suite": suite["name"],
            "question": suite["question"],
            "sha256": suite["sha256"],
            "device": "cpu",
            "results": str(results),
        }
        given = {"run": facts, "records": made}
        before = copied(given)
        host = PluginHost()

        def observer() -> object:
            found: object = technique(facts)
            if not any(name.startswith("cnnbench_") for name in dir(found)):
                raise BrokenContract(f"{subject.name} returned {type(found).__name__}, expected an object with hooks")
            return found

        with host.observing(observer, Owner("tracker", "kit", "0")):
            _tell(host, made, facts)
        if host.problems:
            problem = host.problems[0]
            raise BrokenContract(problem.cause)
    return Use(given=given, before=before, result=None)


def _tell(host: PluginHost, made: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    planned = len(made)
    plan = {"arms": len(ARMS), "trials": planned, "stages": 4 * planned, "cached": 0, "workers": 1}
    host.plan_ready({"suite": facts["suite"], **plan})
    for record in made:
        trial = {name: record[name] for name in ("key", "dataset", "arm", "seed")}
        host.trial_started(trial)
        host.epoch_finished({**trial, "stage": "train"}, progress(0))
        host.trial_finished(record)
    statuses = {"ok": len(ARMS) * len(SEEDS) - 1, "diverged": 1}
    host.run_finished(
        {"suite": facts["suite"], "planned": planned, "statuses": statuses, "seconds": 1.0, "results": facts["results"]}
    )
