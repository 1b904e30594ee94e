"""What a worker keeps between stages, and how it runs each kind of stage.

The bench loads a dataset once and keeps it, and keeps what it serves from one session to the next; everything else is
made anew for each stage from the plain data of its task, so that nothing leaks from one trial into the next.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from cnnbench.artifact import save_model
from cnnbench.data import load, split
from cnnbench.devices import resolve
from cnnbench.environment import usable_cores
from cnnbench.errors import BrokenContract, OutOfMemory
from cnnbench.meters.choose import make_meter
from cnnbench.options import make
from cnnbench.parcel import read_data
from cnnbench.plain import settings_from_plain
from cnnbench.seeds import Streams
from cnnbench.slots import Observer
from cnnbench.stages.build import Builder
from cnnbench.stages.compress import compress
from cnnbench.stages.energy import training_energy
from cnnbench.stages.evaluate import evaluate
from cnnbench.stages.kept import LastModel
from cnnbench.stages.memory import PeakMemory, inference_memory, own_mib, ran_out, reached_mib
from cnnbench.stages.profile import profile
from cnnbench.stages.rehearse import check
from cnnbench.stages.serve import serve
from cnnbench.stages.session import Shelf, measure_together, parts
from cnnbench.stages.threads import intra_op_threads
from cnnbench.stages.together import Entrant, enter, part_of, train_in_parts
from cnnbench.stages.train import EVALUATION_BATCH, model_inputs, train
from cnnbench.stages.unchanged import Unchanged
from cnnbench.types import Choice, EnergyOptions, LatencyOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import nn

    from cnnbench.artifact import Artifact
    from cnnbench.devices import Device
    from cnnbench.meters.base import EnergyMeter
    from cnnbench.registry import Registry
    from cnnbench.stages.serve import Served
    from cnnbench.stages.session import Member
    from cnnbench.types import ImageData, Progress, Trained

    Tell = Callable[[Mapping[str, Any]], None]
    Keep = Callable[[Path], dict[str, Any]]

MODEL = "model.pt"
"""The artifact's name in the folder of a stage that makes a model."""


class Bench:
    """One process's workplace.

    Args:
        registry: where techniques come from.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._meters: dict[str, EnergyMeter] = {}
        self._shelf = Shelf()
        self._loaded: tuple[Choice, ImageData, Unchanged] | None = None
        self.last = LastModel()

    def close(self) -> None:
        """Let go of the energy meter and of what is served."""
        self._shelf.close()
        for meter in self._meters.values():
            meter.close()

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
        self._shelf.close()  # what was served is no longer needed, and may be large
        try:
            with intra_op_threads(task["threads"]):
                work = _Work(self, task, inputs, folder, tell)
                result: dict[str, Any] = getattr(work, task["kind"])()
                threads = torch.get_num_threads()
            work.check_data()
        except BaseException as error:
            if ran_out(error):
                raise OutOfMemory(reached_mib(resolve(task["device"]))) from error
            raise
        if threads != task["threads"]:
            note = f"a technique changed torch's number of threads ({task['threads']} to {threads}); it was put back"
            result["notes"] = [*result.get("notes", ()), note]
        return {"notes": [], **result, "seconds": time.perf_counter() - began}

    def measure(
        self, members: Sequence[Member], faults: tuple[type[BaseException], ...]
    ) -> dict[str, dict[str, Any] | BaseException]:
        """Measure models together, in turns, with nothing else of the run beside them.

        Args:
            members: stages of one kind, seed and device, those that others are compared with among them.
            faults: what costs a member alone; anything else that is raised goes through.

        Returns:
            By key: as ``run`` but for ``seconds``, or what the member raised.
        """
        task = members[0].task
        device, options = resolve(task["device"]), latency_options(task)
        sizes = (task["energy"]["batch_size"],) if task["kind"] == "energy" else options.batch_sizes
        found: dict[str, dict[str, Any] | BaseException] = {}
        # All under one number of threads: a compiled model would be compiled anew for another.
        with intra_op_threads(options.threads or usable_cores()):

            def serve(member: Member) -> Served:
                def prepare(folder: Path) -> Served:  # with data of its own, which what is kept ready has no need of
                    work = _Work(self, member.task, (member.model.parent,), member.model.parent, _silent)
                    return work.serve(sizes, folder)

                return self._shelf.get(member, sizes, prepare)

            for part in parts(members):
                self._shelf.keep_only(part)
                meter = self.meter(task["energy"]) if task["kind"] == "energy" else None
                results = measure_together(
                    part, serve, device, options, meter, lambda error: _told(error, device), faults
                )
                found = results | found  # one that is in every part counts as it was in the first
        return found

    def train_together(
        self, tasks: Mapping[str, tuple[Mapping[str, Any], Tell]], faults: tuple[type[BaseException], ...]
    ) -> dict[str, Keep | str]:
        """Train the seeds of one arm in one loop, as many at once as there is memory for.

        Args:
            tasks: training stages that differ in their seed alone, by key, each with what is told of its epochs.
            faults: as ``train_in_parts``, which tells also what is returned.
        """
        self._shelf.close()

        def work(key: str) -> _Work:
            task, tell = tasks[key]
            return _Work(self, task, (), Path(), tell)

        with intra_op_threads(next(iter(tasks.values()))[0]["threads"]):
            return train_in_parts(list(tasks), work, faults)

    def meter(self, energy: Mapping[str, Any]) -> EnergyMeter:
        """The meter for a task's ``energy``, made once for each source: it looks for counters, which takes a while."""
        options = EnergyOptions(**energy)
        name = repr((options.source, options.watts))
        if name not in self._meters:
            self._meters[name] = make_meter(options)
        return self._meters[name]

    def data(self, choice: Choice, sent: str | None = None) -> ImageData:
        """The dataset, loaded once for as long as stages ask for the same.

        Args:
            choice: which.
            sent: the file that it was sent here in, where it is not to be looked for on this machine.
        """
        if self._loaded is None or self._loaded[0] != choice or not self.still():
            self._loaded = None  # let go of the old before the new comes in
            data = load(make(choice, self.registry)) if sent is None else read_data(Path(sent))
            shared = (data.train_images, data.train_labels, data.test_images, data.test_labels)
            self._loaded = (choice, data, Unchanged(shared))
        return self._loaded[1]

    def still(self) -> bool:
        """Whether the dataset is as it was loaded."""
        return self._loaded is None or self._loaded[2].still()


@dataclass
class _Cost:
    """What a block of training cost, for the record."""

    metrics: dict[str, float] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


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
        data = bench.data(self.settings.dataset, task.get("data"))
        self.splits = split(data, self.settings.data, self.streams, self.device.torch)
        self._splits = Unchanged(self.splits.tensors, sampled=False)
        self.builder = Builder(self.settings, bench.registry, self.splits, self.device)

    def check_data(self) -> None:
        """Raise ``BrokenContract`` if the data is no longer as it was loaded."""
        if not (self._splits.still() and self.bench.still()):
            raise BrokenContract("a technique wrote into the dataset's tensors: let it change a copy")

    def rehearse(self) -> dict[str, Any]:
        """Go through training and compression in two steps, to hear of what can't be done before it costs anything.

        ``peak_mib`` is the most memory that this process has held: what the arm's stages may come to as well.
        """
        with PeakMemory(self.device) as memory:
            before = own_mib()  # without what was freed before
            notes = check(self.builder, self.streams)
        above = memory.peak_mib if self.device.in_host_memory else None
        return {"notes": notes, "peak_mib": own_mib() if above is None else before + above}

    def train(self) -> dict[str, Any]:
        """Build and train; the model stays in the folder."""
        notes = [f"trained one by one: {self.task['apart']}"] if "apart" in self.task else []
        input_module = self.builder.input_module()
        run = self.builder.run(input_module, self.streams, observers=self.observers, notes=notes)
        strategies = self.builder.techniques("strategy")
        with self.metered() as cost:
            trained = train(run, strategies)
        return self._trained(trained, input_module, asdict(cost), notes)

    def at_once(self, seeds: int) -> int:
        """How many of these seeds to train in one stack; raises ``Apart`` where that is one."""
        beside = self.task["workers"] if self.device.in_host_memory else self.task.get("on_device", 1)
        return part_of(seeds, self.entrant.seat, self.device.memory_free(), beside)

    @cached_property
    def entrant(self) -> Entrant:
        """This seed, ready to be trained in a stack; raises ``Apart`` where it can't be."""
        return enter(self.builder, self.streams, self.observers)

    def _trained(
        self, trained: Trained, input_module: nn.Module, cost: Mapping[str, Any], notes: Sequence[str]
    ) -> dict[str, Any]:
        """Leave the trained model in the folder; what the record says of its training."""
        self._keep(trained.model, input_module)
        return {
            "metrics": cost["metrics"],
            "methods": cost["methods"],
            "details": {
                "history": [_finite(asdict(progress)) for progress in trained.history],
                "training": trained.notes,
                "workers": self.task["workers"],
                **cost["details"],
            },
            "notes": list(dict.fromkeys([*notes, *trained.remarks, *cost["notes"]])),
        }

    def keep(self, trained: Trained, cost: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """Leave a model that was trained in a stack in a folder; returns as ``Bench.run``."""
        self.folder = folder
        result = self._trained(trained, self.entrant.input, cost, self.entrant.notes)
        return {**result, "seconds": cost["metrics"]["train_seconds"]}

    def compress(self) -> dict[str, Any]:
        """Compress the trained model; the result stays in the folder."""
        trained = self._artifact()
        how = self.builder.procedure(trained.input)
        compressors = self.builder.techniques("compressor")
        with self.metered() as cost:
            model = compress(trained.model, compressors, self.builder, how, self.streams, self.observers)
        self._keep(model, trained.input)
        details = {"energy_compress": cost.details["energy_train"]} if cost.details else {}
        return {"metrics": cost.metrics, "methods": cost.methods, "details": details, "notes": cost.notes}

    @contextmanager
    def metered(self) -> Iterator[_Cost]:
        """Take time, energy and memory of a block of training; they are known once it has ended."""
        cost = _Cost()
        with self.bench.meter(self.task["energy"]).task(self.device) as metered, PeakMemory(self.device) as memory:
            began = time.perf_counter()
            yield cost
            self.device.synchronize()
            seconds = time.perf_counter() - began
        energy = training_energy(metered.reading, self.task["workers"], self.task.get("on_device", 1))
        cost.metrics = {"train_seconds": seconds, **energy.metrics}
        if memory.peak_mib is not None:
            cost.metrics["memory_train_mib"] = memory.peak_mib
        cost.methods, cost.details, cost.notes = energy.methods, energy.details, energy.notes

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
        found = profile(artifact.model, self._inputs(artifact, 1), onnx=self.task.get("onnx", False))
        return {"metrics": found.metrics, "methods": found.methods, "notes": found.notes}

    def memory(self) -> dict[str, Any]:
        """What the served model holds, and what a call at the largest batch adds."""
        options = latency_options(self.task)
        largest = max(options.batch_sizes)
        with intra_op_threads(options.threads or usable_cores()), TemporaryDirectory(prefix="cnnbench-") as folder:
            served = self.serve((largest,), Path(folder), check=False)
            try:
                return {"metrics": inference_memory(served, largest, self.device)}
            finally:
                served.close()

    def serve(self, batch_sizes: Sequence[int], folder: Path, *, check: bool = True) -> Served:
        """The model, made ready for calls of these batch sizes with the threads that are in force."""
        return serve(
            self._artifact(),
            self.builder.techniques("runtime"),
            self.splits,
            self.streams,
            self.device,
            batch_sizes=batch_sizes,
            threads=torch.get_num_threads(),
            folder=folder,
            check=check,
        )

    def _keep(self, model: nn.Module, input_module: nn.Module) -> None:
        """Leave the model in the folder, with what an export tells of it where the dataset is no longer there."""
        notes = {"image_shape": self.splits.image_shape, "class_names": self.splits.class_names}
        artifact = save_model(self.folder / MODEL, model, input_module, notes)
        if self.device.kind == "cpu":
            self.bench.last.put(self.folder / MODEL, artifact)

    def _artifact(self) -> Artifact:
        """The model that this stage starts from, in eval mode on the device."""
        artifact = self.bench.last.get(self.inputs[-1] / MODEL, str(self.device.torch))
        artifact.model.eval()
        return artifact

    def _inputs(self, artifact: Artifact, count: int | None = None) -> torch.Tensor:
        """The test split, or the first of it, as the model takes it."""
        return model_inputs(self.splits.test_images[:count], artifact.input)


def latency_options(task: Mapping[str, Any]) -> LatencyOptions:
    """How a stage's task wants its latency taken."""
    return LatencyOptions(**{**task["latency"], "batch_sizes": tuple(task["latency"]["batch_sizes"])})


def _finite(progress: dict[str, Any]) -> dict[str, Any]:
    """An epoch's progress as JSON has it: a validation loss may overflow while the training's own does not."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in progress.items()}


def _silent(_progress: Mapping[str, Any]) -> None:
    """Tell nobody."""


def _told(error: BaseException, device: Device) -> BaseException:
    """An error as it is, or as what it means: that there is no more memory."""
    return OutOfMemory(reached_mib(device)) if ran_out(error) else error
