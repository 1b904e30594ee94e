"""The ledger: what a trial's stages come to as one record."""

from __future__ import annotations

import pytest

from cnnbench.execute.interface import Outcome
from cnnbench.keys import Place
from cnnbench.ledger import Ledger
from cnnbench.meters.base import Component, Reading
from cnnbench.plan import make_plan
from cnnbench.plugins import PluginHost
from cnnbench.stages.energy import training_energy
from cnnbench.store import Store
from cnnbench.suite import parse

TEXT = """
question = "?"
dataset = "digits"
model = { name = "resnet", depth = 8, width = 4 }
seeds = 1
[arms]
"half" = { compressor = { name = "prune_magnitude", sparsity = 0.5 } }
[measure]
metrics = ["accuracy", "train_time", "energy_train", "co2_train", "memory_train"]
energy = { intensity = 36.0, intensity_source = "a test" }
"""


@pytest.fixture
def enter(tmp_path):
    """``enter(results by kind)`` records the arm "half" from its stages' results."""
    host = PluginHost.discover()
    suite = parse(TEXT.encode(), "suite.toml", host.registry)
    place = Place("cpu", "cpu", "a machine")
    plan = make_plan(suite, host, place)
    ledger = Ledger(suite, plan, place, {}, Store(tmp_path))
    (trial,) = (t for t in plan.trials if t.trial.arm.name == "half")

    def run(results, status="ok"):
        outcomes = {key: Outcome(key, "ok", result=results.get(kind, {})) for kind, key in trial.stages.items()}
        key = trial.stages["evaluate"]
        outcomes[key] = Outcome(key, status, "because" if status != "ok" else None, result=outcomes[key].result)
        return ledger.enter(trial, outcomes)

    return run


def training(seconds, joules, method="measured", mib=10.0):
    return {
        "metrics": {"train_seconds": seconds, "energy_train_j": joules, "memory_train_mib": mib},
        "methods": {"energy_train_j": method},
    }


def test_a_model_costs_what_its_training_and_its_compressors_trainings_cost(enter):
    record = enter({"train": training(2.0, 100.0, mib=50.0), "compress": training(1.0, 20.0, mib=40.0)})
    metrics = record["metrics"]
    assert (metrics["train_seconds"], metrics["energy_train_j"], metrics["memory_train_mib"]) == (3.0, 120.0, 50.0)
    assert metrics["co2_train_mg"] == pytest.approx(120 * 36 / 3600)
    assert enter({"train": training(2.0, 1.0, mib=5.0), "compress": training(1.0, 1.0, mib=9.0)})["metrics"][
        "memory_train_mib"
    ] == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("train", "compress", "together"),
    [
        ("measured", "measured", "measured"),
        ("measured", "estimated", "estimated"),
        ("estimated", "measured", "estimated"),
        ("measured", "shared", "shared"),
        ("unknown", "shared", "unknown"),
    ],
)
def test_a_sum_is_as_weak_as_its_weakest_part(enter, train, compress, together):
    methods = enter({"train": training(1, 1, train), "compress": training(1, 1, compress)})["methods"]
    assert methods == {"energy_train_j": together, "co2_train_mg": together}


def test_how_many_trained_side_by_side_is_told(enter):
    assert enter({"train": {"details": {"workers": 2, "training": {}}}})["workers"] == 2
    assert enter({"train": {}})["workers"] is None


def test_half_a_trial_shows_no_figures(enter):
    record = enter({"train": training(2.0, 100.0)}, status="failed")
    assert (record["status"], record["metrics"], record["methods"]) == ("failed", {}, {})
    assert record["details"]["partial"]["metrics"]["train_seconds"] == 2.0


@pytest.mark.parametrize(
    ("method", "scope", "workers", "told"),
    [
        ("measured", "machine", 1, "measured"),
        ("measured", "machine", 2, "shared"),
        ("measured", "device", 2, "measured"),
        ("estimated", "machine", 2, "estimated"),
    ],
)
def test_a_counter_of_the_machine_holds_the_work_of_all_that_train(method, scope, workers, told):
    reading = Reading({"cpu": Component(5.0, method, scope)}, 1.0)
    assert training_energy(reading, side_by_side=workers).methods == {"energy_train_j": told}
