"""What a worker keeps between stages, and how it runs each kind of stage.

The bench loads a dataset once and keeps it; everything else is made anew for each stage from the plain data of its
task, so that nothing leaks from one trial into the next.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from cnnbench.artifact import load_model, save_model
from cnnbench.data import load, split
from cnnbench.devices import resolve
from cnnbench.environment import usable_cores
from cnnbench.meters import CodecarbonMeter
from cnnbench.options import make
from cnnbench.plain import settings_from_plain
from cnnbench.seeds import Streams
from cnnbench.slots import Observer
from cnnbench.stages.build import Builder
from cnnbench.stages.compress import compress
from cnnbench.stages.energy import inference_energy, training_energy
from cnnbench.stages.evaluate import evaluate
from cnnbench.stages.latency import measure_latency
from cnnbench.stages.memory import PeakMemory
from cnnbench.stages.profile import profile
from cnnbench.stages.rehearse import check
from cnnbench.stages.subject import make_batches
from cnnbench.stages.threads import intra_op_threads
from cnnbench.stages.train import EVALUATION_BATCH, model_inputs, train
from cnnbench.types import Choice, EnergyOptions, LatencyOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from cnnbench.artifact import Artifact
    from cnnbench.meters import EnergyMeter
    from cnnbench.registry import Registry
    from cnnbench.types import ImageData, Progress

    Tell = Callable[[Mapping[str, Any]], None]

MODEL = "model.pt"
"""The artifact's name in the folder of a stage that makes a model."""


@dataclass(frozen=True)
class _Served:
    """A model ready to be timed.

    Attributes:
        key: the model's folder and the arm's runtime.
        call: from model inputs to logits.
        inputs: the test split as the model takes it.
        notes: for the record.
    """

    key: tuple[str, tuple[Choice, ...]]
    call: Callable[[torch.Tensor], torch.Tensor]
    inputs: torch.Tensor
    notes: list[str] = field(default_factory=list)


class Bench:
    """One process's workplace.

    Args:
        registry: where techniques come from.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.meter: EnergyMeter = CodecarbonMeter()
        self.served: _Served | None = None
        self._loaded: tuple[Choice, ImageData] | None = None

    def close(self) -> None:
        """Let go of the energy meter."""
        self.meter.close()

    def run(self, task: Mapping[str, Any], inputs: Sequence[Path], folder: Path, tell: Tell) -> dict[str, Any]:
        """Run one stage.

        Args:
            task: the stage's plain data; see ``plan.Stage.task``.
            inputs: result folders of the stages it starts from, the one whose model it takes last.
            folder: where a stage that makes a model leaves it.
            tell: called with the progress of each training epoch.

        Returns:
            JSON-ready ``metrics``, ``methods``, ``details``, ``notes`` and ``seconds`` (wall time).
        """
        began = time.perf_counter()
        with intra_op_threads(task["threads"]):
            work = _Work(self, task, inputs, folder, tell)
            result: dict[str, Any] = getattr(work, task["kind"])()
        return {"notes": [], **result, "seconds": time.perf_counter() - began}

    def data(self, choice: Choice) -> ImageData:
        """The dataset, loaded once for as long as stages ask for the same."""
        if self._loaded is None or self._loaded[0] != choice:
            self._loaded = None  # let go of the old before the new comes in
            self._loaded = (choice, load(make(choice, self.registry)))
        return self._loaded[1]


class _Teller(Observer):
    """Passes each epoch's progress on."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def after_epoch(self, model: nn.Module, progress: Progress) -> bool:  # noqa: ARG002
        self._tell(asdict(progress))
        return False


class _Work:
    """One stage at work; a method for each kind of stage."""

    def __init__(self, bench: Bench, task: Mapping[str, Any], inputs: Sequence[Path], folder: Path, tell: Tell) -> None:
        self.bench = bench
        self.task = task
        self.inputs = inputs
        self.folder = folder
        self.observers = (_Teller(tell),)
        self.settings = settings_from_plain(task["settings"])
        self.streams = Streams(task["seed"], task["family"])
        self.device = resolve(task["device"])
        data = bench.data(self.settings.dataset)
        self.splits = split(data, self.settings.data, self.streams, self.device.torch)
        self.builder = Builder(self.settings, bench.registry, self.splits, self.device)

    def rehearse(self) -> dict[str, Any]:
        """Go through training and compression in two steps, to hear of what can't be done before it costs anything."""
        return {"notes": check(self.builder, self.streams)}

    def train(self) -> dict[str, Any]:
        """Build and train; the model stays in the folder."""
        notes: list[str] = []
        input_module = self.builder.input_module()
        run = self.builder.run(input_module, self.streams, observers=self.observers, notes=notes)
        strategies = self.builder.techniques("strategy")
        with PeakMemory(self.device) as memory, self.bench.meter.task(self.device) as metered:
            began = time.perf_counter()
            trained = train(run, strategies)
            self.device.synchronize()
            seconds = time.perf_counter() - began
        energy = training_energy(metered.reading)
        save_model(self.folder / MODEL, trained.model, input_module)
        metrics = {"train_seconds": seconds, **energy.metrics}
        if memory.peak_mib is not None:
            metrics["memory_train_mib"] = memory.peak_mib
        return {
            "metrics": metrics,
            "methods": energy.methods,
            "details": {
                "history": [asdict(progress) for progress in trained.history],
                "training": trained.notes,
                **energy.details,
            },
            "notes": list(dict.fromkeys([*notes, *trained.remarks, *energy.notes])),
        }

    def compress(self) -> dict[str, Any]:
        """Compress the trained model; the result stays in the folder."""
        trained = self._artifact()
        how = self.builder.procedure(trained.input)
        compressors = self.builder.techniques("compressor")
        model = compress(trained.model, compressors, self.builder, how, self.streams, self.observers)
        save_model(self.folder / MODEL, model, trained.input)
        return {}

    def evaluate(self) -> dict[str, Any]:
        """Quality on the test split: the one place where a run reads it."""
        artifact = self._artifact()
        choices = [Choice.from_plain(plain) for plain in self.task["metrics"]]
        found = evaluate(
            artifact.model,
            self._inputs(artifact),
            self.splits.test_labels,
            self.splits.num_classes,
            self.device,
            EVALUATION_BATCH,
            {choice.name: make(choice, self.bench.registry) for choice in choices},
        )
        return {"metrics": found.metrics, "details": found.details}

    def profile(self) -> dict[str, Any]:
        """Parameters, multiply-adds, size."""
        artifact = self._artifact()
        found = profile(artifact.model, self._inputs(artifact, 1))
        return {"metrics": found.metrics, "methods": found.methods, "notes": found.notes}

    def latency(self) -> dict[str, Any]:
        """Time of a call, and memory of one at the largest batch, on a machine that does nothing else."""
        options = LatencyOptions(**{**self.task["latency"], "batch_sizes": tuple(self.task["latency"]["batch_sizes"])})
        # All under one number of threads: a compiled model would be compiled anew for another.
        with intra_op_threads(options.threads or usable_cores()):
            served = self._served(options.batch_sizes[0])
            found = measure_latency(served.call, served.inputs, self.device, options)
            (batch,) = make_batches(served.inputs, max(options.batch_sizes), most=1)
            with torch.inference_mode(), PeakMemory(self.device) as memory:
                served.call(batch)
                self.device.synchronize()
        metrics = {key: value for result in found.values() for key, value in result.metrics.items()}
        if memory.peak_mib is not None:
            metrics["memory_inference_mib"] = memory.peak_mib
        samples = {str(size): result.details for size, result in found.items()}
        return {"metrics": metrics, "details": {"latency": samples}, "notes": served.notes}

    def energy(self) -> dict[str, Any]:
        """Energy of an image, on a machine that does nothing else, with the threads that latency is taken with."""
        options = EnergyOptions(**self.task["energy"])
        with intra_op_threads(self.task["serving_threads"] or usable_cores()):
            served = self._served(options.batch_size)
            found = inference_energy(served.call, served.inputs, self.bench.meter, options, self.device)
        return {
            "metrics": found.metrics,
            "methods": found.methods,
            "details": found.details,
            "notes": [*served.notes, *found.notes],
        }

    def _artifact(self) -> Artifact:
        """The model that this stage starts from, in eval mode on the device."""
        artifact = load_model(self.inputs[-1] / MODEL, str(self.device.torch))
        artifact.model.eval()
        return artifact

    def _inputs(self, artifact: Artifact, count: int | None = None) -> torch.Tensor:
        """The test split, or the first of it, as the model takes it."""
        return model_inputs(self.splits.test_images[:count], artifact.input)

    def _served(self, batch_size: int) -> _Served:
        """The model as it is served: by the arm's runtime, else by kernels of its own, else as it is.

        Latency and energy of one model follow each other in one process: it is made ready once, since that may mean to
        compile it.

        Args:
            batch_size: images of the first call.
        """
        runtimes = self.settings.techniques.get("runtime", ())
        key = (str(self.inputs[-1]), runtimes)
        if self.bench.served is None or self.bench.served.key != key:
            self.bench.served = None  # let go of the old before the new comes in
            self.bench.served = self._made_ready(key, batch_size)
        return self.bench.served

    def _made_ready(self, key: tuple[str, tuple[Choice, ...]], batch_size: int) -> _Served:
        artifact = self._artifact()
        model, inputs = artifact.model, self._inputs(artifact)
        (example,) = make_batches(inputs, batch_size, most=1)
        for runtime in self.builder.techniques("runtime"):
            # A simulated format is no work that a runtime would have to do.
            plain = getattr(model, "unsimulated", None)
            notes = [f"served as floating point: {model.kernels_reason}"] if plain else []
            return _Served(key, runtime(plain() if plain else model, example), inputs, notes)
        deploy = getattr(model, "deploy", None)
        if deploy is None:
            return _Served(key, model, inputs)
        call = deploy(example)
        kernels = getattr(model, "kernels", "its own")
        reason = getattr(model, "kernels_reason", "")
        return _Served(key, call, inputs, [f"served by {kernels} kernels" + (f" ({reason})" if reason else "")])
