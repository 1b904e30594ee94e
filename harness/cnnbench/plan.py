"""Trials become stages, each with a key that is the hash of all that can change its output.

Equal keys are one stage: six compressors over one network train it once per seed. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from cnnbench.bulk import no_collection
from cnnbench.key_text import digest_of, joined, written, written_list, written_table
from cnnbench.keys import Keys, Place, family, measuring_digest, onnx_writers
from cnnbench.matrix import Trial, arms, trials
from cnnbench.options import complete
from cnnbench.plain import settings_plain
from cnnbench.quantities import METRICS, quantities
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cnnbench.key_text import Written
    from cnnbench.keys import ArmKeys
    from cnnbench.plugins import PluginHost
    from cnnbench.suite import Suite
    from cnnbench.types import Measure

EXCLUSIVE = frozenset({"latency", "energy"})
"""Stages that run alone, after all others: anything beside them would change what they measure."""


class Stage(NamedTuple):
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
    several = len(suite.datasets) > 1
    maker = _Stages(place, suite.measure, written_list(*map(keys.choice, metrics)), metrics)
    planned: list[PlannedTrial] = []
    known: dict[tuple[str, str], _Known] = {}
    for trial in trials(suite, only):
        name = trial.arm.name
        if (arm := known.get((trial.dataset, name))) is None:
            arm = known[trial.dataset, name] = _known(trial, host, keys, several=several)
        skip = arm.missing or host.check_trial(partial(_brief, trial, place))
        stages = maker.of(trial, arm, due=skip is None)
        key = digest_of(trial.arm.role, written_table(stages), arm.runtimes)
        planned.append(PlannedTrial(trial, key, stages, skip, arm.advice, arm.fingerprint))
    return Plan(tuple(planned), maker.made, maker.unshared)


def _brief(trial: Trial, place: Place) -> dict[str, Any]:
    """A trial as plugins see it; a copy, since they may change what they are given."""
    settings = settings_plain(trial.arm.settings)
    return {"arm": trial.arm.name, "seed": trial.seed, "device": place.device, "settings": settings}


@dataclass(frozen=True)
class _Known:
    """What an arm's seeds have in common on one dataset.

    Attributes:
        keys: of its stages.
        settings: as plain data, which all tasks of the arm share.
        missing: the install line of what it lacks, or None.
        advice: what plugins say of it.
        runtimes: those named. Without a metric that it serves, a runtime is in no stage's key; its arm is a trial of
            its own all the same.
        fingerprint: of the dataset.
        where: what labels and sessions begin with: the dataset, where there are several.
    """

    keys: ArmKeys
    settings: dict[str, Any]
    missing: str | None
    advice: tuple[str, ...]
    runtimes: Written
    fingerprint: str
    where: str


def _known(trial: Trial, host: PluginHost, keys: Keys, *, several: bool) -> _Known:
    settings = trial.arm.settings
    return _Known(
        keys=keys.of_arm(trial),
        settings=settings_plain(settings),
        missing=keys.missing(settings),
        advice=host.advise_arm(settings_plain(settings)),  # a copy, since plugins may change what they are given
        runtimes=written([choice.plain() for choice in settings.techniques.get("runtime", ())]),
        fingerprint=keys.fingerprint(trial),
        where=f"{trial.dataset}, " if several else "",
    )


class _Stages:
    """Makes the stages of trials, each once.

    Attributes:
        made: by key, inputs before what needs them.
        unshared: number of stages there would be if none were shared.
    """

    def __init__(self, place: Place, measure: Measure, metrics_key: Written, metrics: Sequence[Choice]) -> None:
        self.made: dict[str, Stage] = {}
        self.unshared = 0
        self._place = place
        self._wanted = {q.stage for q in quantities(measure.metrics, measure.latency.batch_sizes)}
        self._on_cpu = place.kind == "cpu"  # elsewhere the device's allocator tells what is whose
        self._memory_train = "memory_train" in measure.metrics
        self._alone = self._on_cpu and self._memory_train
        # What tasks hold beside their trial's own, and what their keys do.
        self._source = {"energy": measure.energy.taking()}
        self._latency = {"latency": asdict(measure.latency)}
        self._metrics = {"metrics": [c.plain() for c in metrics]}
        self._onnx = {"onnx": True} if "size_onnx" in measure.metrics else {}
        self._metrics_key = metrics_key
        self._profile_key = [written(onnx_writers())] if self._onnx else []
        # Copies that kernels keep of the weights depend on the processor; buffers on the threads.
        taken = (measure.latency.batch_sizes, measure.latency.threads, place.machine, measuring_digest())
        self._memory_key = joined(*taken)
        drawn = (measure.energy.taking(), measure.latency.threads, place.energy, version("codecarbon"))
        self._energy_key = joined(*drawn)

    def of(self, trial: Trial, arm: _Known, *, due: bool) -> dict[str, str]:
        """The keys of one trial's stages by kind, inputs first; where it is due, those not made before are made."""
        seed = trial.seed
        task = {
            "settings": arm.settings,
            "seed": seed,
            "family": family(trial),
            "device": self._place.device,
            "threads": self._place.threads,
        }
        name = f"{arm.where}{trial.arm.name}"
        by_kind: dict[str, str] = {}

        def add(
            kind: str,
            key: str,
            inputs: tuple[str, ...],
            more: Mapping[str, Any],
            whose: str = f"{name}, seed {seed}",
            session: str = "",
            reference: str | None = None,
            *,
            own_process: bool = False,
        ) -> None:
            by_kind[kind] = key
            if due and key not in self.made:
                own = {**task, "kind": kind, **more}
                self.made[key] = Stage(key, kind, own, inputs, f"{whose}: {kind}", session, reference, own_process)

        keys = arm.keys
        trained, compressed = models = keys.models(seed)
        # Once for all seeds: what it finds hangs on none.
        add("rehearse", keys.rehearsal, (), {"seed": 0}, whose=name)
        stacked = trial.arm.settings.recipe.stacked
        if stacked and self._memory_train:
            apart = {"apart": "memory_train is asked for, which is known of a training by itself alone"}
            add("train", trained, (), {**self._source, **apart}, own_process=self._alone)
        else:
            session = f"train, {name}" if stacked else ""
            add("train", trained, (), self._source, own_process=self._alone, session=session)
        inputs: tuple[str, ...] = (trained,)
        if compressed:
            add("compress", compressed, inputs, self._source, own_process=self._alone)
            inputs = (trained, compressed)
        add("evaluate", digest_of("evaluate", models.model, self._metrics_key), inputs, self._metrics)
        if "profile" in self._wanted:
            add("profile", digest_of("profile", models.model, *self._profile_key), inputs, self._onnx)
        if "memory" in self._wanted:
            key = digest_of("memory", models.model, keys.runtimes, self._memory_key)
            add("memory", key, inputs, self._latency, own_process=self._on_cpu)
        if "latency" in self._wanted:
            other = None if keys.reference is None else keys.reference.latency(seed)
            more = {**self._latency, "reference": other}
            session = f"latency, {arm.where}seed {seed}"
            add("latency", keys.latency(seed), inputs, more, session=session, reference=other)
        if "energy" in self._wanted:
            key = digest_of("energy", keys.served(seed), self._energy_key)
            session = f"energy, {arm.where}seed {seed}"
            add("energy", key, inputs, {**self._source, **self._latency}, session=session)
        self.unshared += len(by_kind) if due else 0
        return by_kind
