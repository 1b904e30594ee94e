"""Keys: hashes of all that can change what a stage yields.

The order of arms, the seeds listed beside a seed and the number of workers never enter one. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cnnbench
from cnnbench.data import data_key
from cnnbench.options import make, nested
from cnnbench.slots import SLOTS
from cnnbench.sources import digest_of_files

if TYPE_CHECKING:
    from cnnbench.matrix import Arm, Trial
    from cnnbench.registry import Registry
    from cnnbench.types import Choice, Measure, Settings


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


class Written(str):
    """JSON text of a part that many keys have in common, written out once."""

    __slots__ = ()


def digest(data: object) -> str:
    """Key of JSON-ready data: 32 hex digits, independent of the order of keys in mappings."""
    return _hash(written(data))


def digest_of(*parts: object) -> str:
    """``digest`` of the list of the parts, those ``Written`` standing for what they were written from."""
    return _hash(f"[{','.join([part if isinstance(part, Written) else written(part) for part in parts])}]")


def written(data: object) -> Written:
    """JSON-ready data as the text that keys are made of."""
    return Written(_encode(data))


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{value!r} can't be part of a key")


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_plain).encode


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


@dataclass(frozen=True)
class ModelKeys:
    """Keys of the stages that make one trial's model."""

    rehearsal: str
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
class _ArmKeys:
    """What an arm's seeds have in common on one dataset.

    Attributes:
        rehearsal: key of the stage that rehearses it.
        training: all that training depends on beside seed, family and metering.
        chain: its compressors; None without any.
        runtimes: the runtime that serves, with its sources.
    """

    rehearsal: str
    training: Written
    chain: Written | None
    runtimes: Written


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
        self._made: dict[tuple[str, str, int], ModelKeys] = {}
        self._of_arms: dict[tuple[str, str], _ArmKeys] = {}
        self._references: dict[tuple[str, str], Arm] = {}
        self._served: dict[tuple[str, str, int], Written] = {}
        self._timed: dict[tuple[str, str, int], str] = {}
        # Looked up on disk, hence once.
        self._versions: dict[str, str] = {}
        self._installed: dict[str, bool] = {}
        self._place = place
        self._measure = measure
        self._data: dict[str, str] = {}
        self._sources: dict[str, list[str]] = {}
        self._base = written(
            {"code": code_digest(), "torch": _torch_versions(), "device": place.kind, "threads": place.threads}
        )
        self._metering = [written(part) for part in self._metered()]
        self._machine = written(place.machine)
        self._latency = written(asdict(measure.latency))
        self._measuring = written(measuring_digest())

    def models(self, trial: Trial) -> ModelKeys:
        """Keys of the stages that make a trial's model."""
        name = (trial.dataset, trial.arm.name, trial.seed)
        if name not in self._made:
            arm = self._of_arm(trial)
            trained = digest_of("train", self._base, arm.training, trial.seed, family(trial), *self._metering)
            compressed = None if arm.chain is None else digest_of("compress", trained, arm.chain)
            self._made[name] = ModelKeys(arm.rehearsal, trained, compressed)
        return self._made[name]

    def _of_arm(self, trial: Trial) -> _ArmKeys:
        name = (trial.dataset, trial.arm.name)
        if name not in self._of_arms:
            techniques = trial.arm.settings.techniques
            training = written(self._trained(trial.arm.settings))
            chain = [self.choice(choice) for choice in techniques.get("compressor", ())]
            runtimes = [self.choice(choice) for choice in techniques.get("runtime", ())]
            rehearsal = digest_of("rehearse", self._base, training, chain)
            self._of_arms[name] = _ArmKeys(rehearsal, training, written(chain) if chain else None, written(runtimes))
        return self._of_arms[name]

    def _metered(self) -> list[Any]:
        """What a training's cost depends on and its weights do not, as far as the suite asks for that cost."""
        wanted, energy = {*self._measure.metrics}, self._measure.energy
        # Its memory is known only from a process that has done nothing else.
        metered: list[Any] = ["own process"] if "memory_train" in wanted else []
        if wanted & {"energy_train", "co2_train"} and energy.source != "auto":
            metered += [energy.source, energy.watts]
        return metered

    def runtimes(self, trial: Trial) -> Written:
        """The runtime that serves, with its sources."""
        return self._of_arm(trial).runtimes

    def served(self, trial: Trial) -> Written:
        """What is timed, where, and by which code."""
        name = (trial.dataset, trial.arm.name, trial.seed)
        if name not in self._served:  # an arm that others are compared with is asked for once for each of them
            model = written(self.models(trial).model)
            self._served[name] = Written(f"[{model},{self._machine},{self.runtimes(trial)},{self._measuring}]")
        return self._served[name]

    def reference(self, trial: Trial) -> Trial | None:
        """The same seed, on the same dataset, of the arm that a trial is compared with."""
        arm = self._arms.get(trial.arm.against)
        if arm is None:
            return None
        name = (trial.dataset, arm.name)
        if name not in self._references:
            self._references[name] = trial.with_arm(arm).arm
        return type(trial)(self._references[name], trial.seed, trial.dataset)

    def latency(self, trial: Trial) -> str:
        """Of the latency stage: what it is compared with belongs to its result."""
        name = (trial.dataset, trial.arm.name, trial.seed)
        if name not in self._timed:
            reference = self.reference(trial)
            other = None if reference is None else self.served(reference)
            self._timed[name] = digest_of("latency", self.served(trial), other, self._latency)
        return self._timed[name]

    def missing(self, settings: Mapping[str, Any]) -> str | None:
        """The install line of the first optional package that something in an arm's plain settings lacks."""
        from importlib.util import find_spec

        from cnnbench.errors import MissingDependency

        for choice in nested(settings):
            for need in self._registry.get(choice.slot, choice.name).card.requires:
                # A dotted name is looked for by its package: ``find_spec`` would import that, or raise without it.
                package = need.module.partition(".")[0]
                if package not in self._installed:
                    self._installed[package] = find_spec(package) is not None
                if not self._installed[package]:
                    return f"{choice.name} {MissingDependency(need.module, need.extra, need.distribution)}"
        return None

    def _trained(self, settings: Settings) -> dict[str, Any]:
        """All that training depends on beside the base, seed and family."""
        recipe = settings.recipe
        techniques = {
            slot: [self.choice(choice) for choice in choices]
            for slot, choices in settings.techniques.items()
            if SLOTS[slot].stage == "train" and choices
        }
        return {
            "data": data_key(settings.dataset, settings.data, self.fingerprint(settings)),
            "model": self.choice(settings.model),
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "precision": recipe.precision,
            "channels_last": recipe.channels_last,
            "optimizer": self.choice(recipe.optimizer),
            "schedule": self.choice(recipe.schedule),
            "loss": self.choice(recipe.loss),
            "techniques": techniques,
            # Only where they are on: a recipe without them has the key that it always had.
            **({"stacked": True} if recipe.stacked else {}),
            **({"compiled": True} if recipe.compiled else {}),
        }

    def choice(self, choice: Choice) -> list[Any]:
        """A choice with the sources behind it and behind the techniques named within its options."""
        sources = [self._source(c) for c in (choice, *nested(choice.options))]
        return [choice.slot, choice.name, dict(choice.options), sources]

    def _source(self, choice: Choice) -> list[str]:
        """Where a technique's code comes from, and what it says of code or files of the user's that it will use."""
        name = digest(choice.plain())
        if name not in self._sources:
            entry = self._registry.get(choice.slot, choice.name)
            known = [entry.owner.distribution, entry.owner.version, entry.source_digest]
            for need in entry.card.requires:
                if need.module not in self._versions:
                    self._versions[need.module] = _version(need.module)
                known.append(self._versions[need.module])
            if hasattr(entry.cls, "fingerprint"):
                known.append(make(choice, self._registry).fingerprint())
            self._sources[name] = known
        return self._sources[name]

    def fingerprint(self, settings: Settings) -> str:
        """Of the dataset's images and labels, wherever they lie."""
        name = digest(settings.dataset.plain())
        if name not in self._data:
            self._data[name] = make(settings.dataset, self._registry).fingerprint()
        return self._data[name]


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
