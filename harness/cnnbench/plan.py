"""Trials become stages, each with a key that is the hash of all that can change its output.

Equal keys are one stage: six compressors over one network train it once per seed. Nothing here imports torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from cnnbench.bulk import no_collection
from cnnbench.keys import Keys, Place, digest_of, family, measuring_digest, onnx_writers, written
from cnnbench.matrix import Arm, Trial, arms, trials
from cnnbench.options import complete
from cnnbench.plain import settings_plain
from cnnbench.quantities import METRICS, quantities
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cnnbench.keys import Written
    from cnnbench.plugins import PluginHost
    from cnnbench.suite import Suite
    from cnnbench.types import Measure

EXCLUSIVE = frozenset({"latency", "energy"})
"""Stages that run alone, after all others: anything beside them would change what they measure."""


@dataclass(frozen=True)
class Stage:
    """One unit of work.

    Attributes:
        key: hash of everything that can change its output.
        kind: rehearse, train, compress, evaluate, profile, memory, latency or energy.
        task: all that a worker needs, as JSON-ready data.
        inputs: keys of the stages whose model it starts from, the arm's trained model first.
        label: for people, e.g. ``group norm, seed 3: train``.
        session: stages that share it are measured together, in turns, or trained in one loop; empty for those that
            run by themselves.
        reference: key of the stage of its session whose model this one's is compared with, where there is one.
        own_process: it runs in a process that has done nothing before.
    """

    key: str
    kind: str
    task: Mapping[str, Any]
    inputs: tuple[str, ...]
    label: str
    session: str = ""
    reference: str | None = None
    own_process: bool = False

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
        data: fingerprint of its dataset.
    """

    trial: Trial
    key: str
    stages: Mapping[str, str]
    skip: str | None = None
    advice: tuple[str, ...] = ()
    data: str = ""


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

    def part(self, seeds_of: Mapping[str, Sequence[int]]) -> Plan:
        """The same plan with fewer trials.

        Args:
            seeds_of: the seeds to keep, by arm; arms not named are left out.
        """
        kept = tuple(t for t in self.trials if t.trial.seed in seeds_of.get(t.trial.arm.name, ()))
        due = [t for t in kept if t.skip is None]
        wanted = {key for t in due for key in t.stages.values()}
        stages = {key: stage for key, stage in self.stages.items() if key in wanted}
        return Plan(kept, stages, sum(len(t.stages) for t in due))


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
    with no_collection():
        return _planned(suite, host, place, only)


def _planned(suite: Suite, host: PluginHost, place: Place, only: Sequence[str]) -> Plan:
    keys = Keys(host.registry, place, suite.measure, {arm.name: arm for arm in arms(suite)})
    own = [Choice("metric", name) for name in suite.measure.metrics if name not in METRICS]
    metrics = [complete(choice, host.registry) for choice in own]
    maker = _Stages(keys, place, suite.measure, metrics, several=len(suite.datasets) > 1)
    planned: list[PlannedTrial] = []
    stages: dict[str, Stage] = {}
    unshared = 0
    known: dict[tuple[str, str], _Known] = {}
    for trial in trials(suite, only):
        name = trial.arm.name
        if (arm := known.get((trial.dataset, name))) is None:
            arm = known[trial.dataset, name] = _known(trial.arm, host, keys)
        made = maker.of(trial, arm.settings)
        # Each trial has its own copy: a plugin may change what it is given.
        skip = arm.missing or host.check_trial(
            {"arm": name, "seed": trial.seed, "device": place.device, "settings": json.loads(arm.text)}
        )
        by_kind = {stage.kind: stage.key for stage in made}
        key = digest_of(trial.arm.role, by_kind, arm.runtimes)
        planned.append(PlannedTrial(trial, key, by_kind, skip, arm.advice, arm.fingerprint))
        if skip is None:
            unshared += len(made)
            for stage in made:
                stages.setdefault(stage.key, stage)
    return Plan(tuple(planned), stages, unshared)


@dataclass(frozen=True)
class _Known:
    """What an arm's seeds have in common on one dataset.

    Attributes:
        settings: as plain data, which all tasks of the arm share.
        text: the same as JSON.
        missing: the install line of what it lacks, or None.
        advice: what plugins say of it.
        runtimes: those named. Without a metric that it serves, a runtime is in no stage's key; its arm is a trial of
            its own all the same.
        fingerprint: of the dataset.
    """

    settings: dict[str, Any]
    text: str
    missing: str | None
    advice: tuple[str, ...]
    runtimes: Written
    fingerprint: str


def _known(arm: Arm, host: PluginHost, keys: Keys) -> _Known:
    settings = settings_plain(arm.settings)
    text = json.dumps(settings)
    return _Known(
        settings=settings,
        text=text,
        missing=keys.missing(settings),
        advice=host.advise_arm(json.loads(text)),
        runtimes=written([choice.plain() for choice in arm.settings.techniques.get("runtime", ())]),
        fingerprint=keys.fingerprint(arm.settings),
    )


class _Stages:
    """Makes the stages of trials."""

    def __init__(self, keys: Keys, place: Place, measure: Measure, metrics: Sequence[Choice], *, several: bool) -> None:
        self._keys = keys
        self._place = place
        self._several = several  # datasets, so that labels and sessions name them
        self._wanted = {q.stage for q in quantities(measure.metrics, measure.latency.batch_sizes)}
        self._on_cpu = place.kind == "cpu"  # elsewhere the device's allocator tells what is whose
        self._memory_train = "memory_train" in measure.metrics
        self._alone = self._on_cpu and self._memory_train
        # What tasks hold beside their trial's own, and what their keys do.
        self._source = {"energy": measure.energy.taking()}
        self._latency = {"latency": asdict(measure.latency)}
        self._metrics = {"metrics": [c.plain() for c in metrics]}
        self._onnx = {"onnx": True} if "size_onnx" in measure.metrics else {}
        self._metrics_key = written([keys.choice(c) for c in metrics])
        self._profile_key = [written(onnx_writers())] if self._onnx else []
        # Copies that kernels keep of the weights depend on the processor; buffers on the threads.
        taken = (measure.latency.batch_sizes, measure.latency.threads, place.machine, measuring_digest())
        self._memory_key = [written(part) for part in taken]
        drawn = (measure.energy.taking(), measure.latency.threads, place.energy, version("codecarbon"))
        self._energy_key = [written(part) for part in drawn]

    def of(self, trial: Trial, settings: Mapping[str, Any]) -> list[Stage]:
        """The stages of one trial, whose settings are these as plain data, inputs first."""
        task = {
            "settings": settings,
            "seed": trial.seed,
            "family": family(trial),
            "device": self._place.device,
            "threads": self._place.threads,
        }
        made: list[Stage] = []
        where = f"{trial.dataset}, " if self._several else ""
        name = f"{where}{trial.arm.name}"

        def add(kind: str, key: str, inputs: tuple[str, ...], more: Mapping[str, Any], **how: Any) -> None:
            label = f"{name}, seed {trial.seed}: {kind}"
            made.append(Stage(key, kind, {**task, "kind": kind, **more}, inputs, label, **how))

        keys = self._keys.models(trial)
        # Once for all seeds: what it finds hangs on none.
        check = {**task, "kind": "rehearse", "seed": 0}
        made.append(Stage(keys.rehearsal, "rehearse", check, (), f"{name}: rehearse"))
        stacked = trial.arm.settings.recipe.stacked
        if stacked and self._memory_train:
            apart = {"apart": "memory_train is asked for, which is known of a training by itself alone"}
            add("train", keys.trained, (), {**self._source, **apart}, own_process=self._alone)
        else:
            session = f"train, {name}" if stacked else ""
            add("train", keys.trained, (), self._source, own_process=self._alone, session=session)
        if keys.compressed:
            add("compress", keys.compressed, (keys.trained,), self._source, own_process=self._alone)
        models = (keys.trained, keys.compressed) if keys.compressed else (keys.trained,)
        add("evaluate", digest_of("evaluate", keys.model, self._metrics_key), models, self._metrics)
        if "profile" in self._wanted:
            add("profile", digest_of("profile", keys.model, *self._profile_key), models, self._onnx)
        if "memory" in self._wanted:
            key = digest_of("memory", keys.model, self._keys.runtimes(trial), *self._memory_key)
            add("memory", key, models, self._latency, own_process=self._on_cpu)
        if "latency" in self._wanted:
            reference = self._keys.reference(trial)
            other = None if reference is None else self._keys.latency(reference)
            more = {**self._latency, "reference": other}
            session = f"latency, {where}seed {trial.seed}"
            add("latency", self._keys.latency(trial), models, more, session=session, reference=other)
        if "energy" in self._wanted:
            key = digest_of("energy", self._keys.served(trial), *self._energy_key)
            add("energy", key, models, {**self._source, **self._latency}, session=f"energy, {where}seed {trial.seed}")
        return made
