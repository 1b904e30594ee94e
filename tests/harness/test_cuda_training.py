"""Stacked seeds and compiled steps on a CUDA device: ``pytest -m gpu``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cnnbench import cli
from cnnbench.artifact import load_model
from cnnbench.devices import resolve
from cnnbench.stages.compiled import compiled

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

ARMS = {
    "stacked": "{ recipe = { stacked = true } }",
    "compiled": "{ recipe = { compiled = true } }",
    "both": "{ recipe = { stacked = true, compiled = true } }",
    "stacked bf16": '{ recipe = { stacked = true, precision = "bf16" } }',
}
SEEDS = 3


@pytest.fixture(scope="module")
def found(tiny_suite: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[tuple[str, int], Any], Path]:
    """Records by arm and seed, and the folder of the cache."""
    folder = tmp_path_factory.mktemp("training")
    text = tiny_suite(ARMS, metrics=("accuracy", "nll", "train_time"), device="cuda", seeds=SEEDS)
    (folder / "suite.toml").write_text(text.replace("epochs = 1", "epochs = 3"))
    folders = ["--results", str(folder), "--cache", str(folder / "cache")]
    cli.main(["run", str(folder / "suite.toml"), "--quiet", *folders])
    lines = (folder / "records.jsonl").read_text().splitlines()
    return {(record["arm"], record["seed"]): record for record in map(json.loads, lines)}, folder / "cache"


@pytest.mark.parametrize("arm", ARMS)
def test_every_seed_learns_what_it_learns_by_itself(found: Any, arm: str) -> None:
    records, _ = found
    for seed in range(SEEDS):
        record, plain = records[arm, seed], records["baseline", seed]
        assert (record["status"], record["reason"]) == ("ok", None)
        assert not any("one by one" in note for note in record["details"]["notes"])
        # Nine steps from the same weights on the same batches; convolutions use TF32, and bf16 rounds further.
        assert record["metrics"]["nll"] == pytest.approx(plain["metrics"]["nll"], rel=0.05)
        assert ("stacked" in record["details"]) == ("stacked" in arm or arm == "both")


def test_what_is_saved_is_the_network_itself(found: Any) -> None:
    records, cache = found
    kinds = set()
    for arm in ("baseline", *ARMS):
        key = records[arm, 0]["stages"]["train"]
        kinds.add(type(load_model(cache / key[:2] / key / "model.pt").model))
    assert len(kinds) == 1


def test_steps_are_replayed_from_graphs() -> None:
    from torch.profiler import ProfilerActivity, profile

    device = resolve("cuda")
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8)).to(device.torch)
    run = compiled(model, device)
    inputs = torch.rand(4, 8, device=device.torch)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        run(inputs).sum().backward()

    for _ in range(5):  # two that warm up, one that records
        step()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as watched:
        step()
    assert any("GraphLaunch" in event.key for event in watched.key_averages())


def test_free_memory_falls_with_what_is_taken() -> None:
    device = resolve("cuda")
    before = device.memory_free()
    held = torch.empty(256 * 2**20, dtype=torch.uint8, device=device.torch)
    assert before - device.memory_free() == pytest.approx(held.numel(), rel=0.2)
