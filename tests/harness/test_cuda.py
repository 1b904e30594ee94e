"""A whole suite on a CUDA device: ``pytest -m gpu``. Pieces have tests of their own beside those for the CPU."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cnnbench import cli
from cnnbench.devices import resolve
from cnnbench.stages.memory import MIB, PeakMemory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

ARMS = {
    "surgery": '{ norm = { name = "group", groups = 2 }, activation = "silu", initializer = "orthogonal" }',
    "batches": '{ augmentation = "translate", regularizer = "label_smoothing" }',
    "pruned": '{ compressor = { name = "prune_magnitude", sparsity = 0.5, epochs = 1 } }',
    "graphs": '{ runtime = "cuda_graphs" }',
    "bf16": '{ recipe = { precision = "bf16" } }',
}
METRICS = ("accuracy", "nll", "params", "flops", "latency", "memory", "energy", "train_time")


@pytest.fixture(scope="module")
def found(tiny_suite: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Records of the same suite by device and arm."""
    folder = tmp_path_factory.mktemp("cuda")
    records = {}
    for device in ("cpu", "cuda"):
        file, results = folder / f"{device}.toml", folder / device
        text = tiny_suite(ARMS, metrics=METRICS, device=device)
        file.write_text(text.replace("[arms]", "latency = { max_seconds = 0.2 }\n[arms]"))
        cli.main(["run", str(file), "--quiet", "--results", str(results), "--cache", str(folder / "cache")])
        lines = (results / "records.jsonl").read_text().splitlines()
        records[device] = {record["arm"]: record for record in map(json.loads, lines)}
    return records


@pytest.mark.parametrize("arm", ["baseline", "surgery", "pruned", "graphs", "bf16"])
def test_quality_is_that_of_the_cpu(found: dict[str, dict[str, Any]], arm: str) -> None:
    here, there = found["cuda"][arm], found["cpu"]["baseline" if arm == "graphs" else arm]
    assert (here["status"], here["reason"]) == ("ok", None)
    # Four steps from the same weights on the same batches; convolutions use TF32, and bf16 rounds further.
    assert here["metrics"]["nll"] == pytest.approx(there["metrics"]["nll"], rel=0.05)
    assert here["metrics"]["params"] == there["metrics"]["params"]


def test_every_figure_is_there(found: dict[str, dict[str, Any]]) -> None:
    assert {record["status"] for record in found["cuda"].values()} == {"ok"}
    for record in found["cuda"].values():
        metrics = record["metrics"]
        for key in ("latency_b1_ms", "train_seconds", "memory_train_mib", "memory_inference_mib"):
            assert metrics[key] > 0, (record["arm"], key)
    assert found["cuda"]["graphs"]["metrics"]["agreement"] == 1
    assert torch.cuda.get_device_name(0) in found["cuda"]["baseline"]["environment"]["device"]


def test_memory_is_the_allocators() -> None:
    device = resolve("cuda")
    with PeakMemory(device) as memory:
        held = torch.empty(64 * MIB, dtype=torch.uint8, device=device.torch)
        device.synchronize()
        del held
    assert memory.method == "allocator"
    assert memory.peak_mib == pytest.approx(64, abs=1)


@pytest.fixture
def small_gpu() -> Iterator[None]:
    """A GPU that lets this process have 128 MiB."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(128 * MIB / torch.cuda.get_device_properties(0).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("small_gpu")
def test_a_model_too_large_is_out_of_memory_and_costs_its_arm_alone(tiny_suite: Any, tmp_path: Path) -> None:
    arms = {"huge": '{ model = { name = "resnet", depth = 8, width = 512 } }'}  # a convolution of it takes 144 MiB
    (tmp_path / "suite.toml").write_text(tiny_suite(arms, device="cuda"))
    folders = ["--results", str(tmp_path / "results"), "--cache", str(tmp_path / "cache"), "--executor", "inline"]
    cli.main(["run", str(tmp_path / "suite.toml"), "--quiet", *folders])
    lines = (tmp_path / "results" / "records.jsonl").read_text().splitlines()
    statuses = {record["arm"]: record["status"] for record in map(json.loads, lines)}
    assert statuses == {"baseline": "ok", "huge": "oom"}


@pytest.mark.parametrize("index", range(torch.cuda.device_count() if torch.cuda.is_available() else 1))
def test_draws_are_made_on_the_device_that_is_named(index: int) -> None:
    device = resolve(f"cuda:{index}")
    generator = torch.Generator(device.draws).manual_seed(1)
    assert torch.rand(2, generator=generator, device=device.torch).device == device.torch
