"""A finished run on disk, and the hooks' calls that led to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cnnbench.store import Store

if TYPE_CHECKING:
    from pathlib import Path

NORM = {"slot": "norm", "name": "group", "options": {"groups": 8}}
SETTINGS = {
    "dataset": {"slot": "dataset", "name": "digits", "options": {}},
    "data": {"train_size": None, "validation": 0.1},
    "recipe": {"epochs": 2, "optimizer": {"slot": "optimizer", "name": "sgd", "options": {"lr": 0.05}}},
    "techniques": {
        "norm": [NORM],
        "augmentation": [
            {"slot": "augmentation", "name": "flip", "options": {}},
            {"slot": "augmentation", "name": "mixup", "options": {"alpha": 0.2}},
        ],
    },
}


def epoch(number: int, loss: float) -> dict[str, Any]:
    """As ``types.Progress`` is told of."""
    return {
        "epoch": number,
        "epochs": 2,
        "step": 10 * (number + 1),
        "train_loss": loss,
        "validation_loss": None,
        "validation_accuracy": 1 - loss,
        "learning_rate": 0.05,
    }


def record(arm: str, seed: int, status: str = "ok") -> dict[str, Any]:
    """A record as the store has it."""
    ok = status == "ok"
    history = [epoch(0, 0.5 + seed), epoch(1, 0.25 + seed)]
    return {
        "schema": 2,
        "key": f"{arm}/{seed}",
        "suite": {"name": "tricks", "question": "Which?", "sha256": "ab" * 32, "file": "tricks.toml"},
        "dataset": "digits",
        "arm": arm,
        "role": "baseline" if arm == "baseline" else "arm",
        "changes": "" if arm == "baseline" else "norm=group(groups=8)",
        "seed": seed,
        "status": status,
        "reason": None if ok else "train: loss is nan in epoch 1",
        "planned": {"arms": ["baseline", "50 % / ümlaut"], "seeds": [0, 1]},
        "measure": {"primary": "accuracy", "metrics": ["accuracy", "params"]},
        "settings": SETTINGS,
        "device": "cpu",
        "budget": "2 epochs, batch 64",
        "metrics": {"accuracy": 0.9 + seed / 100, "params": 1000.0} if ok else {},
        "methods": {},
        "details": {"history": history} if ok else {"partial": {"metrics": {}, "history": history[:1]}},
    }


@dataclass(frozen=True)
class FinishedRun:
    """A run and its hooks.

    Its trials: one with live epochs of two stages, one of a shared training, one that diverged, and one that was on
    disk before and of which no hook tells.
    """

    facts: dict[str, Any]
    records: dict[str, dict[str, Any]]

    def tell(self, observer: Any) -> None:
        """All of the run, from its first epoch to its end."""
        live = self.records["baseline/0"]
        trial = {name: live[name] for name in ("key", "dataset", "arm", "seed")}
        for stage, loss in (("train", 0.5), ("train", 0.25), ("compress", math.nan)):
            observer.cnnbench_epoch_finished(trial={**trial, "stage": stage}, progress=epoch(0, loss))
        for key in ("baseline/0", "50 % / ümlaut/0", "50 % / ümlaut/1"):
            observer.cnnbench_trial_finished(record=self.records[key])
        summary = {"suite": "tricks", "planned": 4, "statuses": {}, "seconds": 1.0, "results": self.facts["results"]}
        observer.cnnbench_run_finished(summary=summary)


@pytest.fixture
def finished_run(tmp_path: Path) -> FinishedRun:
    """A run of two arms and two seeds in a results folder."""
    records = [
        record("baseline", 0),
        record("baseline", 1),
        record("50 % / ümlaut", 0),
        record("50 % / ümlaut", 1, "diverged"),
    ]
    store = Store(tmp_path / "results")
    for one in records:
        store.append(one)
    facts = {
        "suite": "tricks",
        "question": "Which?",
        "sha256": "ab" * 32,
        "device": "cpu",
        "results": str(tmp_path / "results"),
    }
    return FinishedRun(facts, {one["key"]: one for one in records})
