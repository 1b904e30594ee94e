"""XLA for real, by torch_xla on the CPU: ``tox -e xla``. It needs a torch of its own, so elsewhere this is skipped."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from cnnbench import cli
from cnnbench.artifact import load_model, save_model
from cnnbench.data import Splits
from cnnbench.devices import available, resolve
from cnnbench.meters.base import Component, EnergyMeter, Reading
from cnnbench.seeds import Streams
from cnnbench.stages.energy import inference_energy
from cnnbench.stages.evaluate import predict
from cnnbench.stages.latency import measure_latency
from cnnbench.stages.memory import PeakMemory
from cnnbench.stages.subject import Subject
from cnnbench.stages.train import Procedure, fit
from cnnbench.types import EnergyOptions, LatencyOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from cnnbench.devices import Device

pytest.importorskip("torch_xla", reason="torch_xla is not installed: tox -e xla has it")
metrics = pytest.importorskip("torch_xla.debug.metrics")

XLA = resolve("xla")


def count(name: str) -> int:
    """How often torch_xla has compiled a graph (``CompileTime``) or run one (``ExecuteTime``)."""
    XLA.synchronize()
    found = metrics.metric_data(name)
    return found[0] if found else 0


def network(dropout: float = 0.0) -> nn.Module:
    with Streams(0).default_generator("init"):
        parts = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(64, 3)]
        return nn.Sequential(*parts)


def splits(images: int = 48) -> Splits:
    generator = torch.Generator().manual_seed(1)
    tensors = []
    for size in (images, 16, 16):
        labels = torch.randint(0, 3, (size,), generator=generator)
        noise = torch.randint(0, 120, (size, 1, 6, 6), generator=generator)
        tensors += [(noise + 60 * labels.view(-1, 1, 1, 1)).to(torch.uint8).to("xla"), labels.to("xla")]
    return Splits(*tensors, class_names=("a", "b", "c"))


def train(epochs: int, dropout: float = 0.0) -> tuple[nn.Module, list[float]]:
    model = network(dropout).to("xla")
    how = Procedure(
        splits=splits(),
        input=nn.Identity(),
        augmentations=[],
        regularizers=[],
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        schedule=lambda step, total: 1 - step / total,
        loss=nn.functional.cross_entropy,
        epochs=epochs,
        batch_size=8,
        precision="fp32",
        channels_last=False,
        device=XLA,
    )
    return model, [progress.train_loss for progress in fit(model, how, Streams(0))]


def test_it_is_found_and_never_taken_unasked() -> None:
    assert XLA in available()
    assert str(resolve("auto")) == "cpu"
    assert "torch_xla" in XLA.describe()


def test_a_step_is_compiled_once_not_once_for_each_batch_or_epoch() -> None:
    before = count("CompileTime")
    train(1)
    one_epoch = count("CompileTime") - before
    # A first step, which makes the momentum, the steps after it, and four small graphs around the loop. A graph for
    # each of the 6 batches would be three more.
    assert one_epoch <= 7
    runs = count("ExecuteTime")
    train(3)
    assert count("CompileTime") - before <= one_epoch + 1
    assert count("ExecuteTime") - runs >= 18


def test_dropout_draws_from_the_trials_stream() -> None:
    torch.ones(1, device="xla").sum().item()  # takes the device: its random state is there from now on
    layer, ones = nn.Dropout(0.5), torch.ones(64, device="xla")
    with Streams(0).default_generator("other"):
        ahead = layer(ones).cpu()
        with Streams(0).default_generator("dropout"):
            first = layer(ones).cpu()
        after = layer(ones).cpu()
    with Streams(0).default_generator("dropout"):
        assert torch.equal(layer(ones).cpu(), first)
    with Streams(0).default_generator("other"):
        assert torch.equal(layer(ones).cpu(), ahead)
        assert torch.equal(layer(ones).cpu(), after)  # what came between has moved nothing
    assert not torch.equal(first, ahead)
    assert train(1, dropout=0.5)[1] == train(1, dropout=0.5)[1]


def test_a_model_goes_through_a_file_and_predicts_as_on_the_cpu(tmp_path: Path) -> None:
    model, _ = train(1)
    save_model(tmp_path / "model.pt", model.eval(), nn.Identity())
    images = splits().test_images.float() / 255
    here = predict(load_model(tmp_path / "model.pt", "xla").model, images, 8, XLA)
    there = predict(load_model(tmp_path / "model.pt").model, images.cpu(), 8, resolve("cpu"))
    assert here.shape == (16, 3)
    assert abs(here - there).max() < 1e-4 * abs(there).max()


@dataclass
class Counted:
    """A network that counts its calls."""

    model: nn.Module
    calls: int = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.model(images)


def test_every_timed_call_is_computed() -> None:
    call = Counted(network().to("xla").eval())
    subject = Subject(call, torch.rand(32, 1, 6, 6, device="xla"))
    before = count("ExecuteTime")
    options = LatencyOptions(batch_sizes=(4,), max_seconds=0.5, precision=0.5)
    found = measure_latency({"a": subject}, XLA, options, {}, shuffle=random.Random(0))["a"]
    assert not isinstance(found, Exception), found
    assert call.calls >= 5
    assert count("ExecuteTime") - before >= call.calls


class OneWatt(EnergyMeter):
    """A meter of a machine that draws one watt."""

    def start(self, device: Device) -> None:
        pass

    def stop(self) -> Reading:
        return Reading({"cpu": Component(0.01, "estimated", "machine")}, seconds=0.01)


def test_every_call_in_an_energy_window_is_computed() -> None:
    call = Counted(network().to("xla").eval())
    subject = Subject(call, torch.rand(32, 1, 6, 6, device="xla"))
    before = count("ExecuteTime")
    options = EnergyOptions(batch_size=4, window_seconds=0.05)
    found = inference_energy({"a": subject}, OneWatt(), options, XLA)["a"]
    assert not isinstance(found, Exception), found
    assert call.calls >= 6
    # The calls of the warm-up are one graph.
    assert count("ExecuteTime") - before >= call.calls - 3


def test_memory_on_the_cpu_is_the_processs_own() -> None:
    with PeakMemory(XLA) as memory:
        held = torch.ones(2**24, device="xla") * 2
        XLA.synchronize()
        del held
    assert memory.peak_mib is not None
    assert memory.peak_mib > 32


def test_a_suite_gives_what_it_gives_on_the_cpu(tiny_suite: Any, tmp_path: Path) -> None:
    arms = {
        "surgery": '{ norm = { name = "group", groups = 2 }, activation = "silu", initializer = "orthogonal" }',
        "batches": '{ augmentation = ["translate", "mixup"], regularizer = "label_smoothing" }',
        "pruned": '{ compressor = { name = "prune_magnitude", sparsity = 0.5, epochs = 1 } }',
        "eager": '{ runtime = "eager" }',
    }
    wanted = ("accuracy", "nll", "params", "flops", "size", "latency", "memory", "energy", "train_time")
    found = {}
    for device in ("cpu", "xla"):
        text = tiny_suite(arms, metrics=wanted, device=device)
        (tmp_path / "suite.toml").write_text(text.replace("[arms]", "latency = { max_seconds = 0.1 }\n[arms]"))
        folders = ["--results", str(tmp_path / device), "--cache", str(tmp_path / "cache"), "--workers", "1"]
        cli.main(["run", str(tmp_path / "suite.toml"), "--quiet", *folders])
        lines = (tmp_path / device / "records.jsonl").read_text().splitlines()
        found[device] = {record["arm"]: record for record in map(json.loads, lines)}
    eager = found["xla"].pop("eager")
    assert eager["status"] == "skipped"
    assert "the model is on xla" in eager["reason"]
    for arm, record in found["xla"].items():
        assert (record["status"], record["reason"]) == ("ok", None), arm
        assert_alike(record["metrics"], found["cpu"][arm]["metrics"])


def assert_alike(here: Mapping[str, float], there: Mapping[str, float]) -> None:
    assert set(here) == set(there)
    assert here["params"] == there["params"]
    assert here["flops"] == there["flops"]
    assert here["nll"] == pytest.approx(there["nll"], rel=0.01)
    assert here["accuracy"] == pytest.approx(there["accuracy"], abs=0.03)
    assert all(value > 0 for key, value in here.items() if key.startswith(("latency", "memory", "train")))
