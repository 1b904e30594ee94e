"""Trials become stages, each with a key that is the hash of all that can change its output.

Equal keys are one stage: six compressors over one network train it once per seed. The order of arms, the seeds listed
beside a seed and the number of workers never enter a key. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cnnbench
from cnnbench.data import data_key
from cnnbench.matrix import Trial, trials
from cnnbench.options import complete, make, nested
from cnnbench.plain import settings_plain
from cnnbench.quantities import METRICS, quantities
from cnnbench.registry import digest_of_files
from cnnbench.slots import SLOTS
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnbench.plugins import PluginHost
    from cnnbench.registry import Registry
    from cnnbench.suite import Suite
    from cnnbench.types import Measure, Settings

EXCLUSIVE = frozenset({"latency", "energy"})
"""Stages that run alone, after all others: anything beside them would change what they measure."""


@dataclass(frozen=True)
class Place:
    """Where the run takes place, as far as keys depend on it.

    Attributes:
        device: the device to use, e.g. ``cpu`` or ``cuda:0``.
        kind: its type, e.g. ``cpu``; quality is shared by all machines of a type.
        machine: identity of the machine for latency and energy: processor or GPU model and threads.
        energy: where energy figures come from; the same machine may measure one day what it estimated the day before.
        threads: intra-op threads a training uses on CPU; weights depend on it in their last bits.
    """

    device: str
    kind: str
    machine: str
    energy: str = ""
    threads: int = 1


@dataclass(frozen=True)
class Stage:
    """One unit of work.

    Attributes:
        key: hash of everything that can change its output.
        kind: rehearse, train, compress, evaluate, profile, latency or energy.
        task: all that a worker needs, as JSON-ready data.
        inputs: keys of the stages whose model it starts from, the arm's trained model first.
        label: for people, e.g. ``group norm, seed 3: train``.
    """

    key: str
    kind: str
    task: Mapping[str, Any]
    inputs: tuple[str, ...]
    label: str

    @property
    def exclusive(self) -> bool:
        """It must run alone."""
        return self.kind in EXCLUSIVE


@dataclass(frozen=True)
class PlannedTrial:
    """A trial and the stages that it is made of.

    Attributes:
        trial: arm and seed.
        key: hash of its stages' keys, its arm's role, and its runtime, which no stage may depend on.
        stages: stage key by kind, in order of running.
        skip: why it will not run, or None.
        advice: what plugins say of the arm's combination of techniques.
    """

    trial: Trial
    key: str
    stages: Mapping[str, str]
    skip: str | None = None
    advice: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All trials of a run with their stages.

    Attributes:
        trials: in the order of the table.
        stages: by key, inputs before what needs them; stages shared by several trials stand once.
        unshared: number of stages there would be if none were shared.
    """

    trials: tuple[PlannedTrial, ...]
    stages: Mapping[str, Stage]
    unshared: int = field(default=0)


def digest(data: object) -> str:
    """Key of JSON-ready data: 32 hex digits, independent of the order of keys in mappings."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{value!r} can't be part of a key")


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Digest of the harness's own code that computes results: what trains, compresses and evaluates."""
    root = Path(cnnbench.__file__).parent
    names = (
        "artifact",
        "data",
        "devices",
        "environment",
        "meters",
        "options",
        "plain",
        "seeds",
        "slots",
        "surgery",
        "tracing",
        "types",
    )
    files = [root / f"{name}.py" for name in names] + sorted((root / "stages").glob("*.py"))
    return digest_of_files(files)


def make_plan(suite: Suite, host: PluginHost, place: Place, only: Sequence[str] = ()) -> Plan:
    """The stages of every trial of a suite.

    Args:
        suite: validated.
        host: its plugins may skip trials.
        place: where it would run.
        only: names of arms to keep; the baseline stays.

    Raises:
        UsageError: ``only`` names an arm that the suite has not.
        DataError: the dataset is missing or corrupt.
    """
    keys = _Keys(host.registry, place, suite.measure)
    planned: list[PlannedTrial] = []
    stages: dict[str, Stage] = {}
    unshared = 0
    advice: dict[str, tuple[str, ...]] = {}
    for trial in trials(suite, only):
        made = keys.stages(trial)
        name, settings = trial.arm.name, settings_plain(trial.arm.settings)
        if name not in advice:
            advice[name] = host.advise_arm(settings)
        skip = keys.missing(trial.arm.settings) or host.check_trial(
            {"arm": name, "seed": trial.seed, "device": place.device, "settings": settings}
        )
        by_kind = {stage.kind: stage.key for stage in made}
        # Without a metric that it serves, a runtime is in no stage's key; its arm is a trial of its own all the same.
        runtimes = [choice.plain() for choice in trial.arm.settings.techniques.get("runtime", ())]
        key = digest([trial.arm.role, by_kind, runtimes])
        planned.append(PlannedTrial(trial, key, by_kind, skip, advice[name]))
        if skip is None:
            unshared += len(made)
            for stage in made:
                stages.setdefault(stage.key, stage)
    return Plan(tuple(planned), stages, unshared)


class _Keys:
    """Makes the stages of trials; what many trials have in common is worked out once."""

    def __init__(self, registry: Registry, place: Place, measure: Measure) -> None:
        self._registry = registry
        self._place = place
        self._measure = measure
        own = [Choice("metric", name) for name in measure.metrics if name not in METRICS]
        self._metrics = [complete(choice, registry) for choice in own]
        self._wanted = {q.stage for q in quantities(measure.metrics, measure.latency.batch_sizes)}
        self._data: dict[str, str] = {}
        self._sources: dict[str, list[str]] = {}
        self._base = {"code": code_digest(), "torch": _torch_versions(), "device": place.kind, "threads": place.threads}

    def stages(self, trial: Trial) -> list[Stage]:
        """The stages of one trial, inputs first."""
        settings, measure = trial.arm.settings, self._measure
        plain = settings_plain(settings)
        family = "placebo" if trial.arm.role == "placebo" else ""
        task = {
            "settings": plain,
            "seed": trial.seed,
            "family": family,
            "device": self._place.device,
            "threads": self._place.threads,
        }
        made: list[Stage] = []

        def add(kind: str, key: str, inputs: tuple[str, ...], **more: Any) -> str:
            label = f"{trial.arm.name}, seed {trial.seed}: {kind}"
            made.append(Stage(key, kind, {**task, "kind": kind, **more}, inputs, label))
            return key

        compressors = settings.techniques.get("compressor", ())
        chain = [self._choice(choice) for choice in compressors]
        # Once for all seeds: what it finds hangs on none.
        rehearsal = digest(["rehearse", self._base, self._trained(settings), chain])
        check = {**task, "kind": "rehearse", "seed": 0}
        made.append(Stage(rehearsal, "rehearse", check, (), f"{trial.arm.name}: rehearse"))
        trained = add("train", digest(["train", self._base, self._trained(settings), trial.seed, family]), ())
        models: tuple[str, ...] = (trained,)
        if compressors:
            models = (trained, add("compress", digest(["compress", trained, chain]), (trained,)))
        model = models[-1]
        metrics = [self._choice(choice) for choice in self._metrics]
        add("evaluate", digest(["evaluate", model, metrics]), models, metrics=[c.plain() for c in self._metrics])
        if "profile" in self._wanted:
            add("profile", digest(["profile", model]), models)
        served = [model, self._place.machine, [self._choice(c) for c in settings.techniques.get("runtime", ())]]
        if "latency" in self._wanted:
            options = asdict(measure.latency)
            add("latency", digest(["latency", served, options]), models, latency=options)
        if "energy" in self._wanted:
            options, threads = asdict(measure.energy), measure.latency.threads
            add(
                "energy",
                digest(["energy", served, options, threads, self._place.energy, version("codecarbon")]),
                models,
                energy=options,
                serving_threads=threads,
            )
        return made

    def missing(self, settings: Settings) -> str | None:
        """The install line of the first optional package that something in the arm needs and that is absent."""
        from importlib.util import find_spec

        from cnnbench.errors import MissingDependency

        for choice in nested(settings_plain(settings)):
            for need in self._registry.get(choice.slot, choice.name).card.requires:
                # A dotted name is looked for by its package: ``find_spec`` would import that, or raise without it.
                if find_spec(need.module.partition(".")[0]) is None:
                    return f"{choice.name} {MissingDependency(need.module, need.extra)}"
        return None

    def _trained(self, settings: Settings) -> dict[str, Any]:
        """All that training depends on beside the base, seed and family."""
        recipe = settings.recipe
        techniques = {
            slot: [self._choice(choice) for choice in choices]
            for slot, choices in settings.techniques.items()
            if SLOTS[slot].stage == "train" and choices
        }
        return {
            "data": self._data_key(settings),
            "model": self._choice(settings.model),
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "precision": recipe.precision,
            "channels_last": recipe.channels_last,
            "optimizer": self._choice(recipe.optimizer),
            "schedule": self._choice(recipe.schedule),
            "loss": self._choice(recipe.loss),
            "techniques": techniques,
        }

    def _choice(self, choice: Choice) -> list[Any]:
        """A choice with the sources behind it and behind the techniques named within its options."""
        sources = [self._source(c) for c in (choice, *nested(choice.options))]
        return [choice.slot, choice.name, dict(choice.options), sources]

    def _source(self, choice: Choice) -> list[str]:
        """Where a technique's code comes from, and what it says of code or files of the user's that it will use."""
        name = digest(choice.plain())
        if name not in self._sources:
            entry = self._registry.get(choice.slot, choice.name)
            known = [entry.owner.distribution, entry.owner.version, entry.source_digest]
            known += [_version(need.module) for need in entry.card.requires]
            if hasattr(entry.cls, "fingerprint"):
                known.append(make(choice, self._registry).fingerprint())
            self._sources[name] = known
        return self._sources[name]

    def _data_key(self, settings: Settings) -> str:
        name = digest([settings.dataset.plain(), asdict(settings.data)])
        if name not in self._data:
            dataset = make(settings.dataset, self._registry)
            self._data[name] = data_key(settings.dataset, settings.data, dataset.fingerprint())
        return self._data[name]


def _torch_versions() -> list[str]:
    """What computes: torch, and torchvision for networks and layers of its own."""
    return [version("torch"), version("torchvision")]


def _version(module: str) -> str:
    """Version of the distribution behind an optional package; empty where it is missing or called otherwise."""
    try:
        return version(module.partition(".")[0])
    except PackageNotFoundError:
        return ""
