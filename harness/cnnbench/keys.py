"""Keys: hashes of all that can change what a stage yields.

The order of arms, the seeds listed beside a seed and the number of workers never enter one. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cnnbench
from cnnbench.data import data_key
from cnnbench.key_text import digest, digest_of, joined, written, written_list, written_table
from cnnbench.options import make, nested
from cnnbench.slots import SLOTS
from cnnbench.sources import digest_of_files
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cnnbench.key_text import Written
    from cnnbench.matrix import Arm, Trial
    from cnnbench.registry import Registry
    from cnnbench.types import Measure, Settings


@dataclass(frozen=True)
class Place:
    """Where the run takes place, as far as keys depend on it.

    Attributes:
        device: the device to use, e.g. ``cpu`` or ``cuda:0``.
        kind: its type, e.g. ``cpu``; quality is shared by all machines of a type.
        machine: identity of the machine for latency and energy: processor or GPU model and threads.
        energy: where energy figures come from; the same machine may measure one day what it estimated the day before.
        threads: intra-op threads a training uses on CPU; weights depend on it in their last bits.
        gpus: which GPUs trials may run on side by side, as ``CUDA_VISIBLE_DEVICES`` names them, the first of them the
            device; empty where there is but one. No key depends on them, since they are of one model.
        remark: for people, where some GPUs are left out.
    """

    device: str
    kind: str
    machine: str
    energy: str = ""
    threads: int = 1
    gpus: tuple[str, ...] = ()
    remark: str = ""


_TRAINING = (
    *(
        "artifact",
        "data",
        "devices",
        "environment",
        "host_memory",
        "options",
        "plain",
        "seeds",
        "slots",
        "surgery",
        "tracing",
        "types",
    ),
    *("xla", "stages/bench", "stages/build", "stages/compiled", "stages/compress", "stages/contract"),
    *("stages/evaluate", "stages/kept", "stages/profile", "stages/rehearse", "stages/remarks", "stages/stacked"),
    *("stages/stacking", "stages/threads", "stages/together", "stages/train", "stages/unchanged"),
)
"""Modules of the harness that decide what is trained, compressed and evaluated."""
_MEASURING = (
    *(
        "convert",
        "meters",
        "nvml",
        "stats/rounds",
        "stats/student",
        "stages/energy",
        "stages/latency",
        "stages/memory",
        "stages/noise",
    ),
    *("stages/pinning", "stages/serve", "stages/session", "stages/subject", "stages/timings", "stages/turns"),
)
"""Modules that decide in addition what is measured: a change of these trains nothing anew."""


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Digest of the harness's own code that trains, compresses and evaluates."""
    return _digest_of(_TRAINING)


@lru_cache(maxsize=1)
def measuring_digest() -> str:
    """Digest of the harness's own code that takes latency, energy and memory."""
    return _digest_of(_MEASURING)


def _digest_of(names: tuple[str, ...]) -> str:
    root = Path(cnnbench.__file__).parent
    files = [file for name in names for file in (sorted((root / name).glob("*.py")) or [root / f"{name}.py"])]
    return digest_of_files(files)


class ModelKeys(NamedTuple):
    """Keys of the stages that make one trial's model."""

    trained: str
    compressed: str | None

    @property
    def model(self) -> str:
        """The stage whose model is evaluated and served."""
        return self.compressed or self.trained


def family(trial: Trial) -> str:
    """Of its random streams: a placebo draws others."""
    return "placebo" if trial.arm.role == "placebo" else ""


@dataclass(frozen=True)
class _Timing:
    """What all keys of latency have in common.

    Attributes:
        machine: what it is taken on.
        code: of the harness that takes it.
        options: how it is taken.
    """

    machine: Written
    code: Written
    options: Written


class ArmKeys:
    """Keys of one arm's trials on one dataset, by seed.

    Attributes:
        rehearsal: of the stage that rehearses the arm.
        runtimes: the runtime that serves, with its sources.
        reference: keys of the arm that it is compared with; None for the baseline.
    """

    def __init__(
        self,
        rehearsal: str,
        trained: tuple[Written, Written],
        chain: Written | None,
        runtimes: Written,
        timing: _Timing,
        reference: ArmKeys | None,
    ) -> None:
        """Prepare.

        Args:
            rehearsal: its key.
            trained: all that training depends on, before and after the seed.
            chain: the arm's compressors; None without any.
            runtimes: the runtime that serves, with its sources.
            timing: what all arms have in common.
            reference: the arm that it is compared with.
        """
        self.rehearsal = rehearsal
        self.runtimes = runtimes
        self.reference = reference
        self._trained = trained
        self._chain = chain
        self._timing = timing
        # An arm that others are compared with is asked once for each of them.
        self._models: dict[int, ModelKeys] = {}
        self._served: dict[int, Written] = {}
        self._latency: dict[int, str] = {}

    def models(self, seed: int) -> ModelKeys:
        """Keys of the stages that make a trial's model."""
        if seed not in self._models:
            before, after = self._trained
            trained = digest_of(before, seed, after)
            compressed = None if self._chain is None else digest_of("compress", trained, self._chain)
            self._models[seed] = ModelKeys(trained, compressed)
        return self._models[seed]

    def served(self, seed: int) -> Written:
        """What is timed, where, and by which code."""
        if seed not in self._served:
            timing = self._timing
            self._served[seed] = written_list(self.models(seed).model, timing.machine, self.runtimes, timing.code)
        return self._served[seed]

    def latency(self, seed: int) -> str:
        """Of the latency stage: what it is compared with belongs to its result."""
        if seed not in self._latency:
            other = None if self.reference is None else self.reference.served(seed)
            self._latency[seed] = digest_of("latency", self.served(seed), other, self._timing.options)
        return self._latency[seed]


class Keys:
    """Keys of what trials come to; what many trials have in common is worked out once."""

    def __init__(self, registry: Registry, place: Place, measure: Measure, arms: Mapping[str, Arm]) -> None:
        """Prepare.

        Args:
            registry: where techniques come from.
            place: where the run takes place.
            measure: what is measured, and how.
            arms: all of the suite's, by name.
        """
        self._registry = registry
        self._arms = arms
        self._of_arms: dict[tuple[str, str], ArmKeys] = {}
        # Looked up on disk, hence once.
        self._versions: dict[str, str] = {}
        self._installed: dict[str, bool] = {}
        self._sources: dict[tuple[str, str], list[str]] = {}
        self._fingerprints: dict[str, str] = {}
        self._data: dict[str, tuple[str, Written]] = {}
        # Arms share the choices that they do not change; each is kept with what is known of it, as its id goes with it.
        self._written: dict[int, tuple[Choice, Written]] = {}
        self._lacking: dict[int, tuple[Choice, str | None]] = {}
        self._measure = measure
        self._base = written(
            {"code": code_digest(), "torch": _torch_versions(), "device": place.kind, "threads": place.threads}
        )
        self._metering = self._metered()
        self._timing = _Timing(written(place.machine), written(measuring_digest()), written(asdict(measure.latency)))

    def of_arm(self, trial: Trial) -> ArmKeys:
        """Keys of a trial's arm on its dataset."""
        name = (trial.dataset, trial.arm.name)
        if name not in self._of_arms:
            techniques = trial.arm.settings.techniques
            training = self._training(trial)
            compressors = written_list(*map(self.choice, techniques.get("compressor", ())))
            self._of_arms[name] = ArmKeys(
                rehearsal=digest_of("rehearse", self._base, training, compressors),
                trained=(joined("train", self._base, training), joined(family(trial), *self._metering)),
                chain=compressors if techniques.get("compressor") else None,
                runtimes=written_list(*map(self.choice, techniques.get("runtime", ()))),
                timing=self._timing,
                reference=self._reference(trial),
            )
        return self._of_arms[name]

    def _reference(self, trial: Trial) -> ArmKeys | None:
        """Keys of the arm that a trial is compared with, on the same dataset."""
        against = trial.arm.against
        if (trial.dataset, against) in self._of_arms:
            return self._of_arms[trial.dataset, against]
        return self.of_arm(trial.with_arm(self._arms[against])) if against in self._arms else None

    def _metered(self) -> list[Any]:
        """What a training's cost depends on and its weights do not, as far as the suite asks for that cost."""
        wanted, energy = {*self._measure.metrics}, self._measure.energy
        # Its memory is known only from a process that has done nothing else.
        metered: list[Any] = ["own process"] if "memory_train" in wanted else []
        if wanted & {"energy_train", "co2_train"} and energy.source != "auto":
            metered += [energy.source, energy.watts]
        return metered

    def missing(self, settings: Settings) -> str | None:
        """The install line of the first optional package that something in an arm's settings lacks."""
        for choice in _choices(settings):
            if id(choice) not in self._lacking:
                self._lacking[id(choice)] = choice, self._lack(choice)
            if (line := self._lacking[id(choice)][1]) is not None:
                return line
        return None

    def _lack(self, whole: Choice) -> str | None:
        """The install line of the first optional package that a choice, or one within its options, lacks."""
        from importlib.util import find_spec

        from cnnbench.errors import MissingDependency

        for choice in (whole, *nested(whole.options)):
            for need in self._registry.get(choice.slot, choice.name).card.requires:
                # A dotted name is looked for by its package: ``find_spec`` would import that, or raise without it.
                package = need.module.partition(".")[0]
                if package not in self._installed:
                    self._installed[package] = find_spec(package) is not None
                if not self._installed[package]:
                    return f"{choice.name} {MissingDependency(need.module, need.extra, need.distribution)}"
        return None

    def _training(self, trial: Trial) -> Written:
        """All that training depends on beside the base, seed and family."""
        settings = trial.arm.settings
        recipe = settings.recipe
        techniques = {
            slot: written_list(*map(self.choice, choices))
            for slot, choices in settings.techniques.items()
            if SLOTS[slot].stage == "train" and choices
        }
        return written_table(
            {
                "data": self._data_of(trial)[1],
                "model": self.choice(settings.model),
                "epochs": recipe.epochs,
                "batch_size": recipe.batch_size,
                "precision": recipe.precision,
                "channels_last": recipe.channels_last,
                "optimizer": self.choice(recipe.optimizer),
                "schedule": self.choice(recipe.schedule),
                "loss": self.choice(recipe.loss),
                "techniques": written_table(techniques),
                # Only where they are on: a recipe without them has the key that it always had.
                **({"stacked": True} if recipe.stacked else {}),
                **({"compiled": True} if recipe.compiled else {}),
            }
        )

    def choice(self, choice: Choice) -> Written:
        """A choice with the sources behind it and behind the techniques named within its options."""
        if id(choice) not in self._written:
            sources = [self._source(c) for c in (choice, *nested(choice.options))]
            self._written[id(choice)] = choice, written([choice.slot, choice.name, choice.options, sources])
        return self._written[id(choice)][1]

    def _source(self, choice: Choice) -> list[str]:
        """Where a technique's code comes from, and what it says of code or files of the user's that it will use."""
        entry = self._registry.get(choice.slot, choice.name)
        if (choice.slot, choice.name) not in self._sources:
            known = [entry.owner.distribution, entry.owner.version, entry.source_digest]
            for need in entry.card.requires:
                if need.module not in self._versions:
                    self._versions[need.module] = _version(need.module)
                known.append(self._versions[need.module])
            self._sources[choice.slot, choice.name] = known
        known = self._sources[choice.slot, choice.name]
        return [*known, self._fingerprint(choice)] if hasattr(entry.cls, "fingerprint") else known

    def _fingerprint(self, choice: Choice) -> str:
        """What a technique says of its files, which are read once for all arms that name it with these options."""
        name = digest(choice.plain())
        if name not in self._fingerprints:
            self._fingerprints[name] = make(choice, self._registry).fingerprint()
        return self._fingerprints[name]

    def fingerprint(self, trial: Trial) -> str:
        """Of the images and labels of a trial's dataset, wherever they lie."""
        return self._data_of(trial)[0]

    def _data_of(self, trial: Trial) -> tuple[str, Written]:
        """A dataset's fingerprint and its part of keys."""
        if trial.dataset not in self._data:
            settings = trial.arm.settings
            fingerprint = self._fingerprint(settings.dataset)
            self._data[trial.dataset] = fingerprint, written(data_key(settings.dataset, settings.data, fingerprint))
        return self._data[trial.dataset]


def _choices(settings: Settings) -> Iterator[Choice]:
    """All choices of an arm; those within their options are not among them."""
    yield settings.dataset
    yield settings.model
    yield from (value for value in vars(settings.recipe).values() if isinstance(value, Choice))
    yield from chain.from_iterable(settings.techniques.values())


def _torch_versions() -> list[str]:
    """What computes: torch, and torchvision for networks and layers of its own."""
    return [version("torch"), version("torchvision")]


def onnx_writers() -> list[str]:
    """What writes ONNX files: the versions of its packages, empty where missing, and the harness's own code."""
    return [_version("onnx"), _version("onnxscript"), _digest_of(("convert",))]


def _version(module: str) -> str:
    """Version of the distribution behind an optional package; empty where it is missing or called otherwise."""
    try:
        return version(module.partition(".")[0])
    except PackageNotFoundError:
        return ""
