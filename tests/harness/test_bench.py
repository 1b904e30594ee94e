"""The bench: every kind of stage on a tiny trial, from the plan's tasks to strict JSON; and repeatability."""

from __future__ import annotations

import json
import shutil
import statistics
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from cnnbench.artifact import load_model
from cnnbench.errors import Unsupported
from cnnbench.execute.interface import Epoch, Outcome, Task
from cnnbench.execute.local import LocalExecutor
from cnnbench.execute.perform import perform
from cnnbench.keys import Place
from cnnbench.meters.base import Component, EnergyMeter, Reading
from cnnbench.plan import make_plan
from cnnbench.plugins import PluginHost
from cnnbench.quantities import quantities
from cnnbench.stages import train as train_stage
from cnnbench.stages.bench import MODEL, Bench
from cnnbench.suite import parse
from cnnbench.types import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cnnbench.devices import Device

TEXT = """
question = "?"
dataset = { name = "digits", train_size = 80, test_size = 40 }
model = { name = "resnet", depth = 8, width = 4 }
seeds = 2
placebo = true
[recipe]
epochs = 2
batch_size = 32
optimizer = { name = "sgd", lr = 0.05 }
[baseline]
input = "z_score"
[arms]
"dropout" = { regularizer = { name = "dropout", where = "blocks", p = 0.2 }, augmentation = "mixup" }
"prune" = { compressor = { name = "prune_magnitude", sparsity = 0.5, epochs = 1 } }
"eager" = { runtime = "eager" }
[measure]
metrics = ["accuracy", "params", "flops", "latency", "memory", "energy", "train_time", "energy_train"]
latency = { batch_sizes = [1, 4], max_seconds = 0.05, threads = 2 }
energy = { window_seconds = 0.01, batch_size = 4 }
"""


@dataclass
class Watt(EnergyMeter):
    """A machine that draws one watt by assumption, whatever it does, and two while it computes."""

    devices: list[str] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    closed: bool = False

    def start(self, device: Device) -> None:
        self.devices.append(str(device))
        self.threads.append(torch.get_num_threads())

    def stop(self) -> Reading:
        tasks = len(self.devices)
        watts = 1.0 if tasks == 1 or tasks % 2 == 0 else 2.0  # a look at the meter, then idle and at work in turns
        return Reading({"cpu": Component(watts, "estimated", "process")}, 1.0)

    def close(self) -> None:
        self.closed = True


@dataclass
class Workplace:
    """A plan's stages run one by one, each once, in a folder."""

    root: Path
    bench: Bench
    watt: Watt
    plan: Any
    told: list[Mapping[str, Any]] = field(default_factory=list)

    def stage(self, arm: str, kind: str, seed: int = 0) -> Any:
        (trial,) = (t for t in self.plan.trials if t.trial.arm.name == arm and t.trial.seed == seed)
        return self.plan.stages[trial.stages[kind]]

    def task(self, stage: Any) -> Task:
        inputs = tuple(str(self.root / key) for key in stage.inputs)
        return Task(stage.key, {**stage.task, "workers": 2}, inputs, str(self.root / stage.key))

    def run(self, arm: str, kind: str, seed: int = 0) -> dict[str, Any]:
        return self._run(self.stage(arm, kind, seed))

    def _run(self, stage: Any) -> dict[str, Any]:
        folder = self.root / stage.key
        if not folder.exists():
            for key in stage.inputs:
                self._run(self.plan.stages[key])
            (outcome,) = perform(self.task(stage), self.bench, self.told.append)
            assert outcome.status == "ok", f"{outcome.reason}\n{outcome.trace}"
            assert json.dumps(outcome.result, allow_nan=False)
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())["result"]
        return result

    def model(self, arm: str, kind: str = "train", seed: int = 0) -> nn.Module:
        self.run(arm, kind, seed)
        return load_model(self.root / self.stage(arm, kind, seed).key / MODEL).model

    def again(self, arm: str, kind: str, seed: int = 0) -> None:
        shutil.rmtree(self.root / self.stage(arm, kind, seed).key)
        self.run(arm, kind, seed)


def make_workplace(root: Path, text: str = TEXT) -> Workplace:
    host = PluginHost.discover()
    suite = parse(text.encode(), "suite.toml", host.registry)
    bench = Bench(host.registry)
    watt = Watt()
    bench.meter = lambda energy: watt
    bench._meters["test"] = watt
    return Workplace(root, bench, watt, make_plan(suite, host, Place("cpu", "cpu", "test machine")))


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Iterator[Workplace]:
    place = make_workplace(tmp_path_factory.mktemp("stages"))
    yield place
    place.bench.close()


def state(model: nn.Module) -> torch.Tensor:
    return torch.cat([t.detach().double().flatten() for t in model.state_dict().values()])


# What each stage yields.


COMMON = {"metrics", "methods", "details", "notes", "seconds"}


def test_train(work):
    work.watt.devices.clear()
    work.told.clear()
    result = work.run("baseline", "train")
    assert result.keys() == COMMON
    assert {"train_seconds", "energy_train_j", "memory_train_mib"} == result["metrics"].keys()
    assert 0 < result["metrics"]["train_seconds"] <= result["seconds"]
    assert result["metrics"]["energy_train_j"] == 1.0
    assert result["methods"] == {"energy_train_j": "estimated"}
    history = result["details"]["history"]
    names = {f.name for f in fields(Progress)}
    assert [entry["epoch"] for entry in history] == [0, 1]
    assert all(entry.keys() == names for entry in history)
    assert result["details"]["training"] == {}
    assert work.told == history
    assert work.watt.devices == ["cpu"]
    artifact = load_model(work.root / work.stage("baseline", "train").key / MODEL)
    assert not artifact.model.training
    assert artifact.model(artifact.input(torch.rand(3, 1, 8, 8))).shape == (3, 10)


def test_a_validation_loss_that_overflows_for_a_while_costs_no_training(tmp_path, monkeypatch):
    validate = train_stage.validate
    losses = iter([float("inf"), 1.5])
    monkeypatch.setattr(train_stage, "validate", lambda model, how: (next(losses), validate(model, how)[1]))
    work = make_workplace(tmp_path, TEXT)
    history = work.run("baseline", "train")["details"]["history"]
    assert [epoch["validation_loss"] for epoch in history] == [None, 1.5]


def test_compress_leaves_the_trained_model_as_it_was(work):
    trained = work.model("baseline")
    file = work.root / work.stage("baseline", "train").key / MODEL
    before = file.read_bytes()
    work.told.clear()
    result = work.run("prune", "compress")
    assert file.read_bytes() == before
    assert [progress["epoch"] for progress in work.told] == [0]  # of the fine-tuning
    assert {"train_seconds", "energy_train_j", "memory_train_mib"} == result["metrics"].keys()
    assert result["details"].keys() == {"energy_compress"}
    pruned = work.model("prune", "compress")
    layers = [m for m in pruned.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    zeros = sum(int((m.weight == 0).sum()) for m in layers)
    assert zeros == round(0.5 * sum(m.weight.numel() for m in layers))
    assert not torch.equal(state(trained), state(pruned))
    # Both arms share the one training.
    assert work.stage("prune", "train").key == work.stage("baseline", "train").key


def test_evaluate_scores_the_test_split_and_the_arm_s_own_model(work):
    for arm, kind in (("baseline", "train"), ("prune", "compress")):
        result = work.run(arm, "evaluate")
        model = work.model(arm, kind)
        stage = work.stage(arm, "evaluate")
        assert stage.inputs[-1] == work.stage(arm, kind).key
        artifact = load_model(work.root / stage.inputs[-1] / MODEL)
        with torch.no_grad():
            data = _splits(work, stage.task)
            logits = model(artifact.input(data.test_images / 255))
        accuracy = (logits.argmax(1) == data.test_labels).double().mean().item()
        assert result["metrics"]["accuracy"] == pytest.approx(accuracy)
        quality = {q.key for q in quantities(("accuracy", "f1_macro", "precision_macro", "recall_macro"), ())}
        assert result["metrics"].keys() >= quality | {"nll", "ece", "top5"}
        assert sum(map(sum, result["details"]["confusion"])) == len(data.test_labels) == 40
        assert result["details"]["per_class"].keys() == {"precision", "recall", "f1", "support"}


def _splits(work: Workplace, task: Mapping[str, Any]) -> Any:
    from cnnbench.data import split
    from cnnbench.plain import settings_from_plain
    from cnnbench.seeds import Streams

    settings = settings_from_plain(task["settings"])
    return split(work.bench.data(settings.dataset), settings.data, Streams(task["seed"], task["family"]), "cpu")


def test_profile(work):
    result, pruned = work.run("baseline", "profile"), work.run("prune", "profile")
    keys = {"params", "params_trainable", "params_nonzero", "flops", "size_bytes", "size_deflated_bytes"}
    assert result["metrics"].keys() == keys
    model = work.model("baseline")
    assert result["metrics"]["params"] == sum(p.numel() for p in model.parameters())
    assert pruned["metrics"]["params_nonzero"] < 0.6 * pruned["metrics"]["params"]
    assert pruned["metrics"]["flops"] == result["metrics"]["flops"]


def test_latency(work):
    result = work.run("baseline", "latency")
    expected = {q.key for q in quantities(("latency", "latency_p95", "latency_p99", "throughput"), (1, 4))}
    assert result["metrics"].keys() == expected
    assert all(value >= 0 for value in result["metrics"].values())
    samples = result["details"]["latency"]
    assert samples.keys() == {"1", "4"}
    for one in samples.values():
        assert one["samples_ms"]
        assert one["threads"] == 2
        assert one["stopped"] in {"precision", "time"}
        assert one["reference_ms"] is None
    assert result["details"]["noise"]["measured_together"] == 1


def test_memory(work):
    metrics = work.run("baseline", "memory")["metrics"]
    assert metrics.keys() == {q.key for q in quantities(("memory", "memory_weights", "memory_activations"), ())}
    tensors = work.model("baseline").state_dict().values()
    assert metrics["memory_weights_mib"] == sum(t.numel() * t.element_size() for t in tensors) / 2**20
    total = metrics["memory_weights_mib"] + metrics["memory_activations_mib"]
    assert metrics["memory_inference_mib"] == pytest.approx(total)
    assert work.stage("baseline", "memory").own_process


def test_models_are_measured_in_turns_and_compared_round_by_round(work):
    stages = [work.stage(arm, "latency") for arm in ("baseline", "dropout", "eager")]
    for arm in ("baseline", "dropout", "eager"):
        work.run(arm, "train")
    first, *others = [work.task(stage) for stage in stages]
    task = replace(first, folder=str(work.root / "together"), beside=tuple(others))
    outcomes = perform(task, work.bench, print)
    for other in others:
        shutil.rmtree(other.folder)
    assert [(one.key, one.status) for one in outcomes] == [(stage.key, "ok") for stage in stages]
    baseline, dropout, eager = ([one.result["details"]["latency"]["1"]][0] for one in outcomes)
    rounds = len(baseline["samples_ms"]) // baseline["per_round"]
    assert baseline["reference_ms"] is None
    medians = [
        statistics.median(baseline["samples_ms"][i * baseline["per_round"] : (i + 1) * baseline["per_round"]])
        for i in range(rounds)
    ]
    assert dropout["reference_ms"] == eager["reference_ms"] == pytest.approx(medians)
    assert {one.result["details"]["noise"]["measured_together"] for one in outcomes} == {3}
    assert outcomes[2].result["metrics"]["agreement"] == 1
    assert "agreement" not in outcomes[1].result["metrics"]


def test_a_member_that_can_t_be_served_leaves_the_session(work, monkeypatch):
    from cnnbench_plugins.runtime.eager import Eager

    def refuse(self, model, context):
        raise Unsupported("not this one")

    monkeypatch.setattr(Eager, "__call__", refuse)
    work.bench._shelf.close()
    tasks = []
    for arm in ("baseline", "eager"):
        work.run(arm, "train")
        tasks.append(replace(work.task(work.stage(arm, "latency")), folder=str(work.root / f"leaves {arm}")))
    outcomes = perform(replace(tasks[0], beside=(tasks[1],)), work.bench, print)
    assert [(one.status, one.reason) for one in outcomes] == [("ok", None), ("skipped", "not this one")]


def test_energy_is_taken_with_the_threads_of_latency(work):
    work.run("baseline", "train")
    work.watt.devices.clear()
    work.watt.threads.clear()
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        result = work.run("baseline", "energy")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(work.watt.threads) == {2}
    assert len(work.watt.devices) == 1 + 2 * 3  # a look at the meter, then an idle window before each of three
    assert result["methods"] == {"energy_inference_mj": "estimated"}
    images = result["details"]["energy"]["images"]
    assert result["metrics"]["energy_inference_mj"] == pytest.approx(sorted(1e3 / n for n in images)[1])


@pytest.mark.parametrize("kind", ["train", "compress", "evaluate", "profile", "memory", "latency", "energy"])
def test_every_metric_asked_for_comes_from_some_stage_and_threads_are_restored(work, kind):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        work.run("prune", kind, seed=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    suite_metrics = ("accuracy", "params", "flops", "latency", "memory", "energy", "train_time", "energy_train")
    wanted = {q.key for q in quantities(suite_metrics, (1, 4)) if q.stage == kind}
    assert work.run("prune", kind, seed=1).get("metrics", {}).keys() >= wanted


def test_stages_compute_with_their_task_s_threads(work, monkeypatch):
    stage = work.stage("baseline", "train")
    seen: list[int] = []
    monkeypatch.setattr("cnnbench.stages.bench.train", lambda *a: seen.append(torch.get_num_threads()) or 1 / 0)
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        work.bench.run({**stage.task, "threads": 3}, [], work.root, print)
    assert seen == [3]
    assert torch.get_num_threads() == before


def test_the_runtime_serves(work, monkeypatch):
    from cnnbench_plugins.runtime.eager import Eager

    calls: list[Any] = []
    monkeypatch.setattr(Eager, "__call__", lambda self, model, context: calls.append(context) or model)
    work.run("baseline", "latency")  # first: it would take the place of what was made ready
    work.run("eager", "latency")
    work.run("eager", "energy")
    (context,) = calls
    assert (context.example.shape, context.batch_sizes, context.threads) == ((1, 1, 8, 8), (1, 4), 2)
    assert context.calibration(5).shape == (5, 1, 8, 8)
    assert len(calls) == 1  # made ready once for latency and energy, and not for an arm without a runtime


@pytest.mark.slow
def test_a_runtime_does_not_serve_a_simulation(tmp_path, monkeypatch):
    from cnnbench_plugins.compressor._fake_layers import QuantizedLayer
    from cnnbench_plugins.runtime.eager import Eager

    arms = (
        '"four bits" = { compressor = { name = "quantize_ptq", bits = 4 } }\n'
        '"four bits, eager" = { compressor = { name = "quantize_ptq", bits = 4 }, runtime = "eager" }\n'
    )
    work = make_workplace(tmp_path, TEXT.replace("[measure]", f"{arms}[measure]"))
    served = []
    monkeypatch.setattr(Eager, "__call__", lambda self, model, context: served.append(model) or model)
    reason = "4-bit weights and activations are simulated here: no speed is claimed"
    assert work.run("four bits, eager", "latency")["notes"] == [f"served as floating point: {reason}"]
    assert not any(isinstance(module, QuantizedLayer) for module in served[0].modules())
    assert work.run("four bits", "latency")["notes"] == [f"served by floating-point kernels ({reason})"]
    # Quality is the simulation's.
    exact = work.run("baseline", "evaluate")["metrics"]["nll"]
    assert work.run("four bits", "evaluate")["metrics"]["nll"] != exact


def test_data_is_loaded_once_while_the_dataset_is_the_same(tmp_path, monkeypatch):
    work = make_workplace(tmp_path)
    loads: list[str] = []
    real = "cnnbench.stages.bench.load"
    from cnnbench.data import load

    monkeypatch.setattr(real, lambda dataset: loads.append(type(dataset).__name__) or load(dataset))
    for seed in (0, 1):
        work.run("baseline", "evaluate", seed)
    assert loads == ["Digits"]
    assert work.watt.closed is False
    work.bench.close()
    assert work.watt.closed is True


def test_a_model_with_kernels_of_its_own_is_served_by_them(tmp_path, install_plugin):
    install_plugin(
        "kernels",
        "import cnnbench\n"
        "from torch import nn\n"
        "class Packed(nn.Module):\n"
        "    kernels = 'packed'\n"
        "    kernels_reason = 'for the test'\n"
        "    def __init__(self, model):\n"
        "        super().__init__()\n"
        "        self.model = model\n"
        "    def forward(self, x):\n"
        "        return self.model(x)\n"
        "    def deploy(self, example):\n"
        "        calls.append(tuple(example.shape))\n"
        "        return self.model\n"
        "calls = []\n"
        "@cnnbench.technique('compressor', 'pack')\n"
        "class Pack:\n"
        "    '''Packs.'''\n"
        "    def __call__(self, model, context):\n"
        "        return Packed(model)\n"
        "@cnnbench.hookimpl\n"
        "def cnnbench_register_techniques():\n"
        "    return [Pack]\n",
    )
    work = make_workplace(tmp_path, TEXT.replace("[measure]", '"pack" = { compressor = "pack" }\n[measure]'))
    note = "served by packed kernels (for the test)"
    assert work.run("pack", "latency")["notes"] == [note]
    assert note in work.run("pack", "energy")["notes"]
    assert work.run("pack", "evaluate")["notes"] == []
    import kernels

    assert kernels.calls == [(1, 1, 8, 8)]  # made ready once for latency and energy


# Repeatability.


def test_a_training_again_gives_the_same_bits_after_other_stages(work):
    """Of any arm, whatever this process did in between and whatever its global generators hold."""
    first = {arm: state(work.model(arm)) for arm in ("baseline", "dropout")}
    for kind in ("latency", "energy", "evaluate", "profile"):
        work.run("prune", kind, seed=1)
    torch.manual_seed(1234)
    work.run("placebo", "train")
    for arm, expected in first.items():
        work.again(arm, "train")
        assert torch.equal(state(work.model(arm)), expected), arm


def test_a_compression_again_gives_the_same_bits(work):
    first = state(work.model("prune", "compress"))
    work.run("dropout", "train", 1)
    torch.manual_seed(77)
    work.again("prune", "compress")
    assert torch.equal(state(work.model("prune", "compress")), first)


def test_seeds_and_the_placebo_train_other_models(work):
    models = [work.model("baseline"), work.model("baseline", seed=1), work.model("placebo"), work.model("dropout")]
    weights = [torch.cat([p.detach().flatten() for p in m.parameters()]) for m in models]
    assert not any(torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])


def test_a_local_worker_trains_the_same_bits_as_this_process(work, tmp_path):
    executor = LocalExecutor(1)
    events: list[Any] = []
    try:
        for arm in ("dropout", "baseline"):
            stage = work.stage(arm, "train")
            executor.submit(Task(stage.key, {**stage.task, "workers": 2}, (), str(tmp_path / stage.key)))
            while not (events and isinstance(events[-1], Outcome) and events[-1].key == stage.key):
                events += executor.wait()
    finally:
        executor.close()
    assert [e.status for e in events if isinstance(e, Outcome)] == ["ok", "ok"]
    for arm in ("dropout", "baseline"):
        key = work.stage(arm, "train").key
        here = work.run(arm, "train")["details"]["history"]
        assert [e.progress for e in events if isinstance(e, Epoch) and e.key == key] == here
        assert torch.equal(state(load_model(tmp_path / key / MODEL).model), state(work.model(arm)))
