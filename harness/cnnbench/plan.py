"""Trials become stages, each with a key that is the hash of all that can change its output.

Equal keys are one stage: six compressors over one network train it once per seed. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from cnnbench.keys import Keys, Place, digest, family, measuring_digest, onnx_writers
from cnnbench.matrix import Trial, arms, trials
from cnnbench.options import complete
from cnnbench.plain import settings_plain
from cnnbench.quantities import METRICS, quantities
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
        session: stages that share it are measured together, in turns; empty for those measured by themselves.
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
    keys = Keys(host.registry, place, suite.measure, {arm.name: arm for arm in arms(suite)})
    own = [Choice("metric", name) for name in suite.measure.metrics if name not in METRICS]
    metrics = [complete(choice, host.registry) for choice in own]
    maker = _Stages(keys, place, suite.measure, metrics, several=len(suite.datasets) > 1)
    planned: list[PlannedTrial] = []
    stages: dict[str, Stage] = {}
    unshared = 0
    advice: dict[tuple[str, str], tuple[str, ...]] = {}
    for trial in trials(suite, only):
        made = maker.of(trial)
        name, settings = trial.arm.name, settings_plain(trial.arm.settings)
        arm = (trial.dataset, name)
        if arm not in advice:
            advice[arm] = host.advise_arm(settings)
        skip = keys.missing(trial.arm.settings) or host.check_trial(
            {"arm": name, "seed": trial.seed, "device": place.device, "settings": settings}
        )
        by_kind = {stage.kind: stage.key for stage in made}
        # Without a metric that it serves, a runtime is in no stage's key; its arm is a trial of its own all the same.
        runtimes = [choice.plain() for choice in trial.arm.settings.techniques.get("runtime", ())]
        key = digest([trial.arm.role, by_kind, runtimes])
        fingerprint = keys.fingerprint(trial.arm.settings)
        planned.append(PlannedTrial(trial, key, by_kind, skip, advice[arm], fingerprint))
        if skip is None:
            unshared += len(made)
            for stage in made:
                stages.setdefault(stage.key, stage)
    return Plan(tuple(planned), stages, unshared)


class _Stages:
    """Makes the stages of trials."""

    def __init__(self, keys: Keys, place: Place, measure: Measure, metrics: Sequence[Choice], *, several: bool) -> None:
        self._keys = keys
        self._place = place
        self._measure = measure
        self._metrics = metrics
        self._several = several  # datasets, so that labels and sessions name them
        self._wanted = {q.stage for q in quantities(measure.metrics, measure.latency.batch_sizes)}

    def of(self, trial: Trial) -> list[Stage]:
        """The stages of one trial, inputs first."""
        settings, measure = trial.arm.settings, self._measure
        task = {
            "settings": settings_plain(settings),
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
        on_cpu = self._place.kind == "cpu"  # elsewhere the device's allocator tells what is whose
        source = {"energy": measure.energy.taking()}
        alone = on_cpu and "memory_train" in measure.metrics
        add("train", keys.trained, (), source, own_process=alone)
        if keys.compressed:
            add("compress", keys.compressed, (keys.trained,), source, own_process=alone)
        models = tuple(filter(None, (keys.trained, keys.compressed)))
        metrics = {"metrics": [c.plain() for c in self._metrics]}
        add(
            "evaluate", digest(["evaluate", keys.model, [self._keys.choice(c) for c in self._metrics]]), models, metrics
        )
        if "profile" in self._wanted:
            onnx = {"onnx": True} if "size_onnx" in measure.metrics else {}
            add("profile", digest(["profile", keys.model, *([onnx_writers()] if onnx else [])]), models, onnx)
        latency = asdict(measure.latency)
        if "memory" in self._wanted:
            sizes = measure.latency.batch_sizes
            runtimes = self._keys.runtimes(trial)
            # Copies that kernels keep of the weights depend on the processor; buffers on the threads.
            how = [sizes, latency["threads"], self._place.machine, measuring_digest()]
            key = digest(["memory", keys.model, runtimes, *how])
            add("memory", key, models, {"latency": latency}, own_process=on_cpu)
        if "latency" in self._wanted:
            reference = self._keys.reference(trial)
            other = None if reference is None else self._keys.latency(reference)
            add(
                "latency",
                self._keys.latency(trial),
                models,
                {"latency": latency, "reference": other},
                session=f"latency, {where}seed {trial.seed}",
                reference=other,
            )
        if "energy" in self._wanted:
            options = measure.energy.taking()
            how = [options, measure.latency.threads, self._place.energy, version("codecarbon")]
            add(
                "energy",
                digest(["energy", self._keys.served(trial), *how]),
                models,
                {"energy": options, "latency": latency},
                session=f"energy, {where}seed {trial.seed}",
            )
        return made
