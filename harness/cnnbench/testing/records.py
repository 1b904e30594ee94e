"""Records of a tiny run that never ran, as a results folder would hold them."""

from __future__ import annotations

from typing import Any

ARMS = {"baseline": 0.80, "technique": 0.84}
"""Accuracy by arm."""
SEEDS = (0, 1, 2)
EPOCHS = 2


def progress(epoch: int) -> dict[str, Any]:
    """The fields of ``types.Progress`` after 0-based ``epoch``."""
    return {
        "epoch": epoch,
        "epochs": EPOCHS,
        "step": 10 * (epoch + 1),
        "train_loss": 1 / (epoch + 1),
        "validation_loss": 1.1 / (epoch + 1),
        "validation_accuracy": 0.7 + epoch / 10,
        "learning_rate": 0.1,
    }


def records() -> list[dict[str, Any]]:
    """Two arms under three seeds; the last trial diverged."""
    made = [_record(arm, seed) for arm in ARMS for seed in SEEDS]
    made[-1] |= {"status": "diverged", "reason": "train: training loss is nan in epoch 2 of 2", "metrics": {}}
    return made


def _record(arm: str, seed: int) -> dict[str, Any]:
    baseline = arm == "baseline"
    techniques = {} if baseline else {"norm": [{"slot": "norm", "name": "group", "options": {"groups": 2}}]}
    return {
        "schema": 2,
        "key": f"{arm}/{seed}",
        "suite": {"name": "tiny", "question": "Does the technique help?", "sha256": "0" * 64, "file": "tiny.toml"},
        "dataset": "digits",
        "arm": arm,
        "role": "baseline" if baseline else "arm",
        "reference": None if baseline else "baseline",
        "changes": "" if baseline else "norm=group(groups=2)",
        "seed": seed,
        "status": "ok",
        "reason": None,
        "planned": {"arms": list(ARMS), "seeds": list(SEEDS)},
        "measure": {"primary": "accuracy", "metrics": ["accuracy", "params", "latency"]},
        "settings": {
            "dataset": {"slot": "dataset", "name": "digits", "options": {}},
            "data": {"train_size": None, "validation": 0.1},
            "model": {"slot": "model", "name": "plain", "options": {"depth": 3, "width": 8, "norm": True}},
            "recipe": {"epochs": EPOCHS, "batch_size": 64},
            "techniques": techniques,
        },
        "device": "cpu",
        "budget": "2 epochs, batch 64",
        "metrics": {"accuracy": ARMS[arm] + seed / 100, "params": 2000.0, "latency": 1.5 + seed / 10},
        "methods": {},
        "details": {"history": [progress(epoch) for epoch in range(EPOCHS)]},
    }
